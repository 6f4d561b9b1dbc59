//! What is accepted as a controller, and what those who are refused are told.

use super::{load, shown};
use crate::support::components::{CONTRACT, Guest, WASI, component, sleeper};
use tidegate::controller::{FaultKind, Source};
use tidegate_wasm::{Artifact, ComponentSource, LoadOptions};

async fn refusal(bytes: Vec<u8>) -> String {
    let fault = Artifact::from_bytes(bytes, &LoadOptions::default()).await.map(drop).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Incompatible);
    shown(&fault)
}

#[tokio::test]
async fn an_artifact_tells_what_it_is() {
    let bytes =
        sleeper().min_batch_size("(i32.const 5)").enter("(call $sleep (i64.const 0)) (call $run (i32.const 1))");
    let bytes = bytes.component();
    let artifact = Artifact::from_bytes(bytes.clone(), &LoadOptions::default()).await.unwrap();
    assert_eq!(artifact.size(), bytes.len());
    assert_eq!(artifact.digest().len(), 64);
    assert_eq!(artifact.contract_version(), "0.1.0");
    assert!(!artifact.exports_default_batch_size());
    assert!(artifact.exports_min_batch_size());
    insta::assert_snapshot!([artifact.imports(), artifact.exports()].concat().join("\n"));
}

#[tokio::test]
async fn a_controller_for_a_later_patch_of_the_contract_is_accepted() {
    let artifact = load(&Guest::new().edit("@0.1.0", "@0.1.7")).await.unwrap();
    assert_eq!(artifact.contract_version(), "0.1.7");
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused() {
    insta::assert_snapshot!("garbage", refusal(b"hello, world!".to_vec()).await);
    insta::assert_snapshot!("nothing_at_all", refusal(Vec::new()).await);
    insta::assert_snapshot!("core_module", refusal(wat::parse_str("(module)").unwrap()).await);
    let mut truncated = Guest::new().component();
    truncated.truncate(truncated.len() / 2);
    let message = refusal(truncated).await;
    assert!(message.contains("the component cannot be compiled: "), "{message}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused() {
    let path = std::path::Path::new("no/such/controller.wasm");
    let fault = Artifact::load(path, &LoadOptions::default()).await.map(drop).unwrap_err();
    insta::assert_snapshot!(shown(&fault));
}

#[tokio::test]
async fn what_is_no_file_or_too_large_for_a_component_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let load = async |name: &str| {
        let fault = Artifact::load(&folder.path().join(name), &LoadOptions::default()).await.map(drop).unwrap_err();
        fault.message
    };
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let message = load("pipe").await;
    assert!(message.contains("it is not a regular file"), "{message}");
    let message = load(".").await;
    assert!(message.contains("is a directory"), "{message}");
    std::fs::File::create(folder.path().join("large")).unwrap().set_len((128 << 20) + 1).unwrap();
    let message = load("large").await;
    assert!(message.contains("134217729 bytes"), "{message}");
}

#[tokio::test]
async fn a_component_that_is_no_controller_is_refused() {
    insta::assert_snapshot!("empty_component", refusal(wat::parse_str("(component)").unwrap()).await);
    let only_batch_sizes = component(
        r#"(module (func (export "tidegate:controller/default-batch-size@0.1.0#default-batch-size")
             (param i32 i32 i32 i32) (result i32) i32.const 1)
           (memory (export "memory") 1)
           (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 0))"#,
        CONTRACT,
        "with-default-batch-size",
    );
    insta::assert_snapshot!("only_batch_sizes", refusal(only_batch_sizes).await);
}

#[tokio::test]
async fn a_controller_for_another_contract_is_refused() {
    let later = Guest::new().edit("@0.1.0", "@0.2.0");
    insta::assert_snapshot!("another_version", refusal(later.component()).await);
    let other_result = Guest::new().edit("-> result<admission, string>", "-> result<delay, string>");
    insta::assert_snapshot!("another_result", refusal(other_result.component()).await);
    let other_batch_size = Guest::new().default_batch_size("(i32.const 1)").edit(
        "default-batch-size: func(update-name: string, database-name: string) -> u32",
        "default-batch-size: func(update-name: string, database-name: string) -> s32",
    );
    insta::assert_snapshot!("another_batch_size", refusal(other_batch_size.component()).await);
}

#[tokio::test]
async fn an_import_that_the_host_does_not_have_is_refused() {
    let interface = Guest::new()
        .import(
            r#"(import "acme:secrets/vault@1.0.0" "open" (func $open))"#,
            "import acme:secrets/vault@1.0.0;",
            "package acme:secrets@1.0.0 { interface vault { open: func(); } }",
        )
        .enter("(call $open) (call $run (i32.const 1))");
    insta::assert_snapshot!("unknown_interface", refusal(interface.component()).await);
    let function = Guest::new()
        .edit("  get-all: func()", "  set: func(key: string);\n  get-all: func()")
        .import(r#"(import "tidegate:controller/settings@0.1.0" "set" (func $set (param i32 i32)))"#, "", "")
        .enter("(call $set (i32.const 0) (i32.const 0)) (call $run (i32.const 1))");
    insta::assert_snapshot!("unknown_function", refusal(function.component()).await);
}

#[tokio::test]
async fn only_the_file_with_the_pinned_digest_is_loaded() {
    let bytes = Guest::new().component();
    let digest = Artifact::from_bytes(bytes.clone(), &LoadOptions::default()).await.unwrap().digest().to_owned();
    let pin = |hex: &str| {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        LoadOptions { sha256: Some(std::array::from_fn(|byte| digit(byte * 2))), ..LoadOptions::default() }
    };
    assert!(Artifact::from_bytes(bytes.clone(), &pin(&digest)).await.is_ok());
    let fault = Artifact::from_bytes(bytes, &pin(&"0f".repeat(32))).await.map(drop).unwrap_err();
    assert_eq!(fault.kind, FaultKind::WrongDigest);
    insta::assert_snapshot!(shown(&fault).replace(&digest, "[digest]"));
}

#[tokio::test]
async fn an_instance_that_cannot_start_is_refused_at_load() {
    let trap = Guest::new().fields("(func $boom unreachable) (start $boom)");
    insta::assert_snapshot!("start_traps", shown(&load(&trap).await.map(drop).unwrap_err()));
    let endless = Guest::new().fields("(func $spin (loop $again (br $again))) (start $spin)");
    insta::assert_snapshot!("start_never_ends", shown(&load(&endless).await.map(drop).unwrap_err()));
    let hungry = Guest::new().pages(2_000);
    insta::assert_snapshot!("start_wants_too_much_memory", shown(&load(&hungry).await.map(drop).unwrap_err()));
}

#[tokio::test]
async fn optional_callbacks_may_be_there_one_by_one() {
    let cases = [
        (Guest::new(), None, None),
        (Guest::new().default_batch_size("(i32.const 7)"), Some(7), None),
        (Guest::new().min_batch_size("(i32.const 3)"), None, Some(3)),
        (Guest::new().default_batch_size("(i32.const 7)").min_batch_size("(i32.const 3)"), Some(7), Some(3)),
    ];
    for (guest, default_batch_size, min_batch_size) in cases {
        let artifact = load(&guest).await.unwrap();
        assert_eq!(artifact.exports_default_batch_size(), default_batch_size.is_some());
        assert_eq!(artifact.exports_min_batch_size(), min_batch_size.is_some());
        let mut controller = ComponentSource::new("paced", artifact).start("master").await.unwrap();
        assert_eq!(controller.default_batch_size("u", "d").await, Ok(default_batch_size));
        assert_eq!(controller.min_batch_size("u", "d").await, Ok(min_batch_size));
    }
}

#[tokio::test]
async fn wasi_is_there_and_grants_nothing() {
    let guest = Guest::new()
        .import(
            r#"(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
               (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
               (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))"#,
            "import wasi:cli/environment@0.2.0; import wasi:filesystem/preopens@0.2.0;",
            WASI,
        )
        .enter(
            "(call $environment (i32.const 128)) (call $arguments (i32.const 136)) (call $directories (i32.const 144))
             (call $run (i32.add (i32.load (i32.const 132)) (i32.add (i32.load (i32.const 140)) (i32.load (i32.const 148)))))",
        );
    let mut controller = super::start(&guest).await;
    let (_, answer) = super::enter(&mut *controller).await;
    assert_eq!(answer, Ok(tidegate::controller::Admission::Run(std::time::Duration::ZERO)));
}

#[tokio::test]
async fn a_cache_serves_the_second_load_and_a_broken_one_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = Guest::new().component();
    let within =
        |directory: std::path::PathBuf| LoadOptions { cache_directory: Some(directory), ..LoadOptions::default() };
    let cache = folder.path().join("cache");
    for _ in 0..2 {
        assert!(Artifact::from_bytes(bytes.clone(), &within(cache.clone())).await.is_ok());
    }
    assert!(std::fs::read_dir(&cache).unwrap().count() > 0);
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    assert!(Artifact::from_bytes(bytes, &within(file)).await.is_ok());
}
