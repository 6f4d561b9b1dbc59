//! Controllers written on the spot: WebAssembly text for each callback, made into a component for the contract.
//!
//! ```ignore
//! let mut guest = Guest::new();
//! let hello = guest.text("hello");
//! let bytes = guest.enter(format!("(call $log (i32.const 2) {hello}) (call $run (i32.const 50))")).component();
//! ```
//!
//! The body of a callback leaves an i32: for on-update, enter and exit what one of these functions returns, for batch
//! sizes the number itself. The body of the destructor leaves nothing.
//!
//! | function | does |
//! | --- | --- |
//! | `$iteration` | answers on-update with a new iteration, whose representation is 7 |
//! | `$run` ms | answers enter |
//! | `$wait` ms text | answers enter; a text is an address and a length, see [`Guest::text`] |
//! | `$done` | answers exit |
//! | `$error` text | answers any of the three |
//! | `$log` level text | `log.write`; 0 is trace, 4 is error |
//! | `$setting` text → address or 0 | `settings.get`; at the address stand the value's own address and length |
//! | `$settings` → address | `settings.get-all`; at the address stand the list's own address and length |
//! | `$signal` text text → address or 0 | `signals.read`; at the address stand the f64 value and, 8 on, the u32 age |
//! | `$new` i32 → handle | makes an iteration with any representation |

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract, as controllers' authors get it.
pub const CONTRACT: &str = include_str!("../../wit/controller.wit");

/// Where texts start: below lie the areas for results, above (at 64 KiB) the heap.
const TEXTS: usize = 4_096;

/// A controller in the making. As it is made, it runs batches of 100 ms and exports no batch sizes.
#[derive(Clone)]
pub struct Guest {
    on_update: String,
    enter: String,
    exit: String,
    dtor: String,
    default_batch_size: Option<String>,
    min_batch_size: Option<String>,
    imports: String,
    fields: String,
    world: String,
    packages: String,
    pages: u32,
    texts: Vec<u8>,
    edits: Vec<(String, String)>,
}

impl Guest {
    /// A controller that does what is usual.
    pub fn new() -> Guest {
        Guest {
            on_update: "(call $iteration)".to_owned(),
            enter: "(call $run (i32.const 100))".to_owned(),
            exit: "(call $done)".to_owned(),
            dtor: String::new(),
            default_batch_size: None,
            min_batch_size: None,
            imports: String::new(),
            fields: String::new(),
            world: String::new(),
            packages: String::new(),
            pages: 2,
            texts: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// The body of on-update.
    pub fn on_update(self, body: impl Into<String>) -> Guest {
        Guest { on_update: body.into(), ..self }
    }

    /// The body of enter.
    pub fn enter(self, body: impl Into<String>) -> Guest {
        Guest { enter: body.into(), ..self }
    }

    /// The body of exit. Its parameters: `$outcome` (0 completed, 1 failed, 2 cancelled), and then `$a $b $duration
    /// $finished`, of which a failure's text is `$a $b`.
    pub fn exit(self, body: impl Into<String>) -> Guest {
        Guest { exit: body.into(), ..self }
    }

    /// The body of the iteration's destructor.
    pub fn dtor(self, body: impl Into<String>) -> Guest {
        Guest { dtor: body.into(), ..self }
    }

    /// Exports default-batch-size with this body.
    pub fn default_batch_size(self, body: impl Into<String>) -> Guest {
        Guest { default_batch_size: Some(body.into()), ..self }
    }

    /// Exports min-batch-size with this body.
    pub fn min_batch_size(self, body: impl Into<String>) -> Guest {
        Guest { min_batch_size: Some(body.into()), ..self }
    }

    /// Adds fields to the core module: functions, tables, globals, a start function.
    pub fn fields(mut self, fields: &str) -> Guest {
        self.fields.push_str(fields);
        self
    }

    /// Adds an import: the core module's, the world's, and packages in WIT where it is not the contract's own.
    pub fn import(mut self, core: &str, world: &str, packages: &str) -> Guest {
        self.imports.push_str(core);
        self.world.push_str(world);
        self.packages.push_str(packages);
        self
    }

    /// The memory it starts with, in pages of 64 KiB; at least 2.
    pub fn pages(self, pages: u32) -> Guest {
        Guest { pages, ..self }
    }

    /// Replaces text in the contract and in the module alike, to build for another contract than the host's.
    pub fn edit(mut self, from: &str, to: &str) -> Guest {
        self.edits.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Puts a text into memory; gives its address and length as two instructions.
    pub fn text(&mut self, text: &str) -> String {
        let address = TEXTS + self.texts.len();
        self.texts.extend(text.as_bytes());
        assert!(TEXTS + self.texts.len() <= 65_536, "texts end where the heap starts");
        format!("(i32.const {address}) (i32.const {})", text.len())
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        component(&self.edited(self.module()), &self.edited(self.wit()), "guest")
    }

    fn edited(&self, text: String) -> String {
        self.edits.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    fn wit(&self) -> String {
        let optional = |body: &Option<String>, name| body.as_ref().map_or("", |_| name);
        format!(
            "{CONTRACT}\nworld guest {{ include controller; {} {} {} }}\n{}",
            optional(&self.default_batch_size, "include with-default-batch-size;"),
            optional(&self.min_batch_size, "include with-min-batch-size;"),
            self.world,
            self.packages,
        )
    }

    fn module(&self) -> String {
        let batch_size = |name: &str, body: &Option<String>| {
            body.as_ref().map_or(String::new(), |body| {
                format!(
                    r#"(func ${name} (export "tidegate:controller/{name}@0.1.0#{name}")
                        (param i32 i32 i32 i32) (result i32) {body})
                    (export "cabi_post_tidegate:controller/{name}@0.1.0#{name}" (func $free))"#
                )
            })
        };
        let texts: String = self.texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
        format!(
            r#"(module
  (import "tidegate:controller/log@0.1.0" "write" (func $log (param i32 i32 i32)))
  (import "tidegate:controller/settings@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "tidegate:controller/settings@0.1.0" "get-all" (func $get_all (param i32)))
  (import "tidegate:controller/signals@0.1.0" "read" (func $read (param i32 i32 i32 i32 i32)))
  (import "[export]tidegate:controller/pacing@0.1.0" "[resource-new]iteration" (func $new (param i32) (result i32)))
  {imports}
  (memory (export "memory") {pages})
  (data (i32.const {TEXTS}) "{texts}")
  (global $heap (mut i32) (i32.const 65536))
  {fields}
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start (i32.and
      (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $start) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))) (then unreachable))
    (local.get $start))
  (func $free (param i32) (global.set $heap (i32.const 65536)))

  (func $answer (param $is_error i32) (param $first i32) (param $second i32) (param $third i32) (param $fourth i32)
    (result i32)
    (i32.store (i32.const 16) (local.get $is_error))
    (i32.store (i32.const 20) (local.get $first))
    (i32.store (i32.const 24) (local.get $second))
    (i32.store (i32.const 28) (local.get $third))
    (i32.store (i32.const 32) (local.get $fourth))
    (i32.const 16))
  (func $iteration (result i32)
    (call $answer (i32.const 0) (call $new (i32.const 7)) (i32.const 0) (i32.const 0) (i32.const 0)))
  (func $run (param $ms i32) (result i32)
    (call $answer (i32.const 0) (i32.const 0) (local.get $ms) (i32.const 0) (i32.const 0)))
  (func $wait (param $ms i32) (param $text i32) (param $length i32) (result i32)
    (call $answer (i32.const 0) (i32.const 1) (local.get $ms) (local.get $text) (local.get $length)))
  (func $done (result i32)
    (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
  (func $error (param $text i32) (param $length i32) (result i32)
    (call $answer (i32.const 1) (local.get $text) (local.get $length) (i32.const 0) (i32.const 0)))
  (func $setting (param $key i32) (param $length i32) (result i32)
    (call $get (local.get $key) (local.get $length) (i32.const 64))
    (select (i32.const 68) (i32.const 0) (i32.load8_u (i32.const 64))))
  (func $settings (result i32)
    (call $get_all (i32.const 80))
    (i32.const 80))
  (func $signal (param $db i32) (param $db_length i32) (param $name i32) (param $length i32) (result i32)
    (call $read (local.get $db) (local.get $db_length) (local.get $name) (local.get $length) (i32.const 96))
    (select (i32.const 104) (i32.const 0) (i32.load8_u (i32.const 96))))

  (func $on_update (export "tidegate:controller/pacing@0.1.0#on-update")
    (param $update i32) (param $update_length i32) (param $db i32) (param $db_length i32) (param $one_shot i32)
    (result i32) {on_update})
  (func $enter (export "tidegate:controller/pacing@0.1.0#[method]iteration.enter") (param $self i32) (result i32)
    {enter})
  (func $exit (export "tidegate:controller/pacing@0.1.0#[method]iteration.exit")
    (param $self i32) (param $outcome i32) (param $a i32) (param $b i32) (param $duration f64) (param $finished i32)
    (result i32) {exit})
  (func $dtor (export "tidegate:controller/pacing@0.1.0#[dtor]iteration") (param $self i32) {dtor})
  (export "cabi_post_tidegate:controller/pacing@0.1.0#on-update" (func $free))
  (export "cabi_post_tidegate:controller/pacing@0.1.0#[method]iteration.enter" (func $free))
  (export "cabi_post_tidegate:controller/pacing@0.1.0#[method]iteration.exit" (func $free))
  {default_batch_size}
  {min_batch_size})"#,
            imports = self.imports,
            pages = self.pages,
            fields = self.fields,
            on_update = self.on_update,
            enter = self.enter,
            exit = self.exit,
            dtor = self.dtor,
            default_batch_size = batch_size("default-batch-size", &self.default_batch_size),
            min_batch_size = batch_size("min-batch-size", &self.min_batch_size),
        )
    }
}

/// Makes a component of a core module in WebAssembly text, for a world of a WIT text.
pub fn component(module: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("guest.wit", wit).expect("the WIT parses");
    let world = resolve.select_world(&[package], Some(world)).expect("the world is there");
    let mut module = wat::parse_str(module).expect("the module parses");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world can be embedded");
    let mut encoder = ComponentEncoder::default().module(&module).expect("the module fits the world").validate(true);
    encoder.encode().expect("the component is valid")
}

/// The parts of WASI 0.2 that guests of tests use, for [`Guest::import`].
pub const WASI: &str = r"
package wasi:io@0.2.0 {
  interface error { resource error; }
  interface poll { resource pollable { block: func(); } }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
  }
}
package wasi:clocks@0.2.0 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.0.{pollable};
    subscribe-duration: func(when: u64) -> pollable;
  }
}
package wasi:filesystem@0.2.0 {
  interface types { resource descriptor; }
  interface preopens {
    use types.{descriptor};
    get-directories: func() -> list<tuple<descriptor, string>>;
  }
}
package wasi:cli@0.2.0 {
  interface environment {
    get-environment: func() -> list<tuple<string, string>>;
    get-arguments: func() -> list<string>;
  }
  interface exit { exit: func(status: result); }
  interface stdout { use wasi:io/streams@0.2.0.{output-stream}; get-stdout: func() -> output-stream; }
  interface stderr { use wasi:io/streams@0.2.0.{output-stream}; get-stderr: func() -> output-stream; }
}
";

/// A controller that has `$sleep`, which sleeps as many milliseconds as its parameter says.
pub fn sleeper() -> Guest {
    Guest::new()
        .import(
            r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
                 (func $subscribe (param i64) (result i32)))
               (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
               (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_pollable (param i32)))"#,
            "import wasi:io/poll@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;",
            WASI,
        )
        .fields(
            "(func $sleep (param $ms i64) (local $pollable i32)
               (local.set $pollable (call $subscribe (i64.mul (local.get $ms) (i64.const 1000000))))
               (call $block (local.get $pollable))
               (call $drop_pollable (local.get $pollable)))",
        )
}

/// A controller that has `$print` and `$print_error`, which write a text to standard output and standard error.
pub fn printer() -> Guest {
    Guest::new()
        .import(
            r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
               (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
               (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
                 (func $write (param i32 i32 i32 i32)))
               (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $close (param i32)))"#,
            "import wasi:cli/stdout@0.2.0; import wasi:cli/stderr@0.2.0; import wasi:io/streams@0.2.0;",
            WASI,
        )
        .fields(
            "(func $print_to (param $stream i32) (param $text i32) (param $length i32)
               (call $write (local.get $stream) (local.get $text) (local.get $length) (i32.const 128))
               (if (i32.load8_u (i32.const 128)) (then unreachable))
               (call $close (local.get $stream)))
             (func $print (param i32 i32) (call $print_to (call $stdout) (local.get 0) (local.get 1)))
             (func $print_error (param i32 i32) (call $print_to (call $stderr) (local.get 0) (local.get 1)))",
        )
}

/// A component of one function whose locals are many, and each is set where another one says so.
pub fn of_many_locals(locals: usize) -> Vec<u8> {
    let mut text = String::from("(component (core module (func (export \"f\") (param i32)");
    for _ in 0..locals {
        text.push_str("(local i32)");
    }
    for local in 1..=locals {
        text += &format!("(if (local.get {}) (then (local.set {local} (i32.const {local}))))", local - 1);
    }
    text.push_str(")))");
    wat::parse_str(text).unwrap()
}
