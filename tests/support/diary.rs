//! A component that writes down each call that it gets, with its arguments, through the contract's own log.

use std::sync::{Arc, Mutex};

use tidegate_wasm::{Artifact, ComponentSource, LoadOptions, LogLine, LogSink};

use super::components::Guest;

/// The lines of a diary; clones share them.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    /// The lines until now.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A source of controllers that write into it.
    pub async fn source(&self, guest: &Guest) -> Arc<ComponentSource> {
        let mut options = LoadOptions::default();
        options.limits.log_lines_per_second = u32::MAX;
        let artifact = Artifact::from_bytes(guest.component(), &options).await.unwrap();
        Arc::new(ComponentSource::new("diary", artifact).with_log(Arc::new(self.clone())))
    }
}

impl LogSink for Diary {
    fn line(&self, line: LogLine) {
        self.0.lock().unwrap().push(line.text);
    }
}

/// A controller that writes a diary: it waits `waits` times for `wait_ms`, then runs a batch with a target of 0 ms, so
/// that the least batch size counts.
pub fn keeper(waits: u32, wait_ms: u32) -> Guest {
    let mut guest = Guest::new();
    let mut put = |text: &str| format!("(call $put {})", guest.text(text));
    let on_update = format!(
        "{} (call $put (local.get $update) (local.get $update_length))
         {} (call $put (local.get $db) (local.get $db_length))
         (if (local.get $one_shot) (then {}))
         (call $write) (global.set $entered (i32.const 0)) (call $iteration)",
        put("on-update "),
        put(" "),
        put(" one-shot"),
    );
    let enter = format!(
        "(global.set $entered (i32.add (global.get $entered) (i32.const 1)))
         (if (result i32) (i32.le_u (global.get $entered) (i32.const {waits}))
           (then {} (call $write) (call $wait (i32.const {wait_ms}) {}))
           (else {} (call $write) (call $run (i32.const 0))))",
        put("enter -> wait"),
        "(i32.const 0) (i32.const 0)",
        put("enter -> run"),
    );
    let exit = format!(
        "(if (i32.eq (local.get $outcome) (i32.const 0)) (then
           {} (call $number (local.get $a)) {} (call $number (local.get $b))
           (if (f64.le (local.get $duration) (f64.const 0)) (then {}))
           (if (local.get $finished) (then {}))))
         (if (i32.eq (local.get $outcome) (i32.const 1)) (then
           {} (call $put (local.get $a) (local.get $b))))
         (if (i32.eq (local.get $outcome) (i32.const 2)) (then {}))
         (call $write) (call $done)",
        put("exit completed: "),
        put(" items of "),
        put(", in no time"),
        put(", finished"),
        put("exit failed: "),
        put("exit cancelled"),
    );
    let dtor = format!("{} (call $write)", put("drop"));
    guest.on_update(on_update).enter(enter).exit(exit).dtor(dtor).fields(
        r"
  (global $entered (mut i32) (i32.const 0))
  (global $end (mut i32) (i32.const 1024))
  (func $put (param $text i32) (param $length i32)
    (memory.copy (global.get $end) (local.get $text) (local.get $length))
    (global.set $end (i32.add (global.get $end) (local.get $length))))
  (func $number (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $number (i32.div_u (local.get $number) (i32.const 10)))))
    (i32.store8 (global.get $end) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))
  (func $write
    (call $log (i32.const 2) (i32.const 1024) (i32.sub (global.get $end) (i32.const 1024)))
    (global.set $end (i32.const 1024)))",
    )
}

/// The same, with batch sizes of its own.
pub fn full_keeper(waits: u32, wait_ms: u32, default_batch_size: u32, min_batch_size: u32) -> Guest {
    let mut guest = keeper(waits, wait_ms);
    let mut batch_size = |name: &str, size: u32| {
        format!(
            "(call $put {}) (call $put (local.get 0) (local.get 1))
             (call $put {}) (call $put (local.get 2) (local.get 3)) (call $write) (i32.const {size})",
            guest.text(&format!("{name} ")),
            guest.text(" ")
        )
    };
    let (default, min) =
        (batch_size("default-batch-size", default_batch_size), batch_size("min-batch-size", min_batch_size));
    guest.default_batch_size(default).min_batch_size(min)
}
