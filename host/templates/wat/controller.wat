;; The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.
;;
;; This is a core module; `wasm-tools component new` wraps it into a component. Names and arguments are those that the
;; component model's canonical ABI gives to the functions of wit/controller.wit: a string is an address and a length, a
;; result with more than one number in it lies in memory, and its address is returned.
;;
;; | addresses | what lies there |
;; | --- | --- |
;; | 0 to 39 | the answer of on-update, enter and exit |
;; | 40 to 63 | the reading that signals.read gives: is there one (u8), value (f64, at 48), age (u32, at 56) |
;; | 64 to 75 | the setting that settings.get gives: is there one (u8), address (at 68), length (at 72) |
;; | 128 to 1023 | constant texts |
;; | from 1024 | what the host passes, one thing after the other, forgotten when the next call begins |
(module
  (import "tidegate:controller/signals@0.1.0" "read" (func $read (param i32 i32 i32 i32 i32)))
  (import "tidegate:controller/settings@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "[export]tidegate:controller/pacing@0.1.0" "[resource-new]iteration" (func $new (param i32) (result i32)))
  (memory (export "memory") 1)

  (data (i32.const 128) "replication-lag")
  (data (i32.const 160) "target_ms")
  (data (i32.const 176) "max_lag_ms")
  (data (i32.const 192) "the replication lag is high")
  (data (i32.const 224) "setting `target_ms` or `max_lag_ms` is not a number")

  ;; What the settings say.
  (global $target_ms (mut i32) (i32.const 100))
  (global $max_lag_ms (mut i32) (i32.const 1000))
  ;; The database in hand, as an address and a length. A host works on one database with one instance.
  (global $database (mut i32) (i32.const 0))
  (global $database_len (mut i32) (i32.const 0))
  ;; Where what the host passes next goes.
  (global $next (mut i32) (i32.const 1024))

  ;; The host asks for room here. The alignment is 8 for everything: enough for each.
  (func (export "cabi_realloc") (param $old i32) (param $old_len i32) (param $align i32) (param $len i32) (result i32)
    (local $here i32)
    (local.set $here (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $here) (local.get $len)))
    (if (i32.gt_u (global.get $next) (i32.const 65536)) (then unreachable))
    (local.get $here))

  ;; ---- the policy ----

  ;; on-update(update-name, database-name, one-shot) -> result<iteration, string>
  (func (export "tidegate:controller/pacing@0.1.0#on-update")
    (param $update i32) (param $update_len i32) (param $name i32) (param $name_len i32) (param $one_shot i32)
    (result i32)
    (global.set $database (local.get $name))
    (global.set $database_len (local.get $name_len))
    ;; An error holds the update, and is shown.
    (global.set $target_ms (call $number (i32.const 160) (i32.const 9) (i32.const 100)))
    (global.set $max_lag_ms (call $number (i32.const 176) (i32.const 10) (i32.const 1000)))
    (if (i32.or (i32.lt_s (global.get $target_ms) (i32.const 0)) (i32.lt_s (global.get $max_lag_ms) (i32.const 0)))
      (then
        (global.set $next (i32.const 1024))
        (i32.store8 (i32.const 0) (i32.const 1)) ;; err
        (i32.store (i32.const 4) (i32.const 224))
        (i32.store (i32.const 8) (i32.const 51))
        (return (i32.const 0))))
    (i32.store8 (i32.const 0) (i32.const 0)) ;; ok
    (i32.store (i32.const 4) (call $new (i32.const 0)))
    (i32.const 0))

  ;; enter() -> result<admission, string>
  (func (export "tidegate:controller/pacing@0.1.0#[method]iteration.enter") (param $self i32) (result i32)
    (call $read (global.get $database) (global.get $database_len) (i32.const 128) (i32.const 15) (i32.const 40))
    ;; Nobody measures it here.
    (if (i32.eqz (i32.load8_u (i32.const 40))) (then (return (call $run (global.get $target_ms)))))
    ;; A reading older than 30 s says nothing about now: go on, but gently.
    (if (i32.gt_u (i32.load (i32.const 56)) (i32.const 30000))
      (then (return (call $run (i32.div_u (global.get $target_ms) (i32.const 10))))))
    (if (f64.gt (f64.load (i32.const 48)) (f64.convert_i32_u (global.get $max_lag_ms)))
      (then (return (call $wait (i32.const 500) (i32.const 192) (i32.const 27)))))
    (call $run (global.get $target_ms)))

  ;; exit(outcome) -> result<_, string>. The last thing of an iteration: what the host passed can be forgotten.
  (func (export "tidegate:controller/pacing@0.1.0#[method]iteration.exit")
    (param $self i32) (param $outcome i32) (param i32 i32 f64 i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.const 0))

  ;; The iteration is dropped, whether it ran or not.
  (func (export "tidegate:controller/pacing@0.1.0#[dtor]iteration") (param $self i32)
    (global.set $next (i32.const 1024)))

  ;; ---- answers ----

  ;; ok(run(ms)): at 0 the tag of the result, at 4 that of the admission, at 8 its value.
  (func $run (param $ms i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.store8 (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (local.get $ms))
    (i32.const 0))

  ;; ok(wait(ms, reason))
  (func $wait (param $ms i32) (param $reason i32) (param $reason_len i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 0))
    (i32.store8 (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (local.get $ms))
    (i32.store (i32.const 12) (local.get $reason))
    (i32.store (i32.const 16) (local.get $reason_len))
    (i32.const 0))

  ;; ---- settings ----

  ;; A setting of up to nine digits; `$otherwise` where it is not set, -1 where it is no number.
  (func $number (param $key i32) (param $key_len i32) (param $otherwise i32) (result i32)
    (local $at i32) (local $end i32) (local $value i32) (local $digit i32)
    (call $get (local.get $key) (local.get $key_len) (i32.const 64))
    (if (i32.eqz (i32.load8_u (i32.const 64))) (then (return (local.get $otherwise))))
    (local.set $at (i32.load (i32.const 68)))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 72))))
    (if (i32.gt_u (i32.sub (i32.load (i32.const 72)) (i32.const 1)) (i32.const 8)) (then (return (i32.const -1))))
    (loop $next_digit
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (if (i32.gt_u (local.get $digit) (i32.const 9)) (then (return (i32.const -1))))
      (local.set $value (i32.add (i32.mul (local.get $value) (i32.const 10)) (local.get $digit)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next_digit (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $value)))
