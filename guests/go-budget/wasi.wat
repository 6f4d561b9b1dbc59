;; What Go's runtime wants of an operating system, answered inside the component: no WASI import is left, and nothing can
;; be asked for. There is no clock and no chance here: time stands still but for a microsecond a look, and "random" numbers
;; are the same in each run, which is what a policy that is to be tested wants.
;; Everything is answered from registers: the runtime may ask while a call passes data.
(module
  (import "env" "memory" (memory 0))
  (global $nanoseconds (mut i64) (i64.const 1))
  (global $random (mut i64) (i64.const 88172645463325252))

  ;; Success with a zero written to each of two places.
  (func $none (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func $nothing (param i32 i32) (result i32) (i32.const 0))
  (export "args_get" (func $nothing))
  (export "environ_get" (func $nothing))

  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $to i32) (result i32)
    (global.set $nanoseconds (i64.add (global.get $nanoseconds) (i64.const 1000)))
    (i64.store (local.get $to) (global.get $nanoseconds))
    (i32.const 0))

  ;; Marsaglia's xorshift, a byte at a time.
  (func (export "random_get") (param $to i32) (param $length i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $to) (local.get $length)))
    (loop $next
      (if (i32.lt_u (local.get $to) (local.get $end)) (then
        (global.set $random (i64.xor (global.get $random) (i64.shl (global.get $random) (i64.const 13))))
        (global.set $random (i64.xor (global.get $random) (i64.shr_u (global.get $random) (i64.const 7))))
        (global.set $random (i64.xor (global.get $random) (i64.shl (global.get $random) (i64.const 17))))
        (i64.store8 (local.get $to) (global.get $random))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br $next))))
    (i32.const 0))

  ;; What a panic prints before it ends goes nowhere: all of it counts as written. (Each piece: an address, a length.)
  (func (export "fd_write") (param $to i32) (param $pieces i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32)
    (loop $next
      (if (local.get $count) (then
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $pieces))))
        (local.set $pieces (i32.add (local.get $pieces) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  (func (export "sched_yield") (result i32) (i32.const 0))
  (func (export "proc_exit") (param i32) (unreachable))

  ;; Not to be had: 8 is EBADF, 58 ENOTSUP.
  (func (export "poll_oneoff") (param i32 i32 i32 i32) (result i32) (i32.const 58))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8)))
