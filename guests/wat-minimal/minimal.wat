;; The least that a controller can be: no sleep, batches of 100 ms, sizes left to the host's configuration.
;;
;; What the host calls gets its arguments, and gives its results, as the component model's canonical ABI says: strings
;; as an address and a length, a result in memory with its address returned. Memory is zero but for what is written
;; here, and the tags of ok(…) and of run(…) are 0.
(module
  ;; Makes a handle of an iteration. There is nothing to remember of one, so that all are number 0.
  (import "[export]tidegate:controller/pacing@0.1.0" "[resource-new]iteration" (func $new (param i32) (result i32)))
  (memory (export "memory") 1)
  ;; Where the host puts a string that it passes. Nobody here reads any, so that each may lie over the last.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  ;; on-update(update-name, database-name, one-shot) -> ok(iteration): at 16 the tag of the result, then the handle.
  (func (export "tidegate:controller/pacing@0.1.0#on-update") (param i32 i32 i32 i32 i32) (result i32)
    (i32.store (i32.const 20) (call $new (i32.const 0)))
    (i32.const 16))
  ;; enter() -> ok(run(100)): at 0 the tag of the result, the tag of the variant, then milliseconds.
  (func (export "tidegate:controller/pacing@0.1.0#[method]iteration.enter") (param i32) (result i32)
    (i32.store (i32.const 8) (i32.const 100))
    (i32.const 0))
  ;; exit(outcome) -> ok: at 0 the tag of the result.
  (func (export "tidegate:controller/pacing@0.1.0#[method]iteration.exit") (param i32 i32 i32 i32 f64 i32) (result i32)
    (i32.const 0)))
