//! What compiling a component may use.

use std::time::Duration;

use tidegate::controller::FaultKind;
use tidegate_wasm::{Artifact, Compiler, LoadOptions};

use crate::support::components::{Guest, of_many_locals};

fn apart() -> LoadOptions {
    let compiler = Compiler::new(env!("CARGO_BIN_EXE_tidegate"), ["compile-component".into()]);
    let compiler = compiler.within(Duration::from_secs(10));
    LoadOptions { compiler: Some(compiler), ..LoadOptions::default() }
}

#[tokio::test]
async fn what_would_take_all_memory_is_a_fault_and_the_process_stays_small() {
    let component = of_many_locals(40_000);
    let fault = Artifact::from_bytes(component, &apart()).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Compilation, "{fault}");
    assert!(fault.message.contains("MiB of memory") || fault.message.contains("had not ended after"), "{fault}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let peak: u64 = peak.parse().unwrap();
    assert!(peak < 3 << 20, "this process took {peak} kB");
}

#[tokio::test]
async fn what_is_compiled_apart_runs_as_what_is_compiled_here_with_a_cache_and_without() {
    let guest = Guest::new();
    let folder = tempfile::tempdir().unwrap();
    for cache_directory in [None, Some(folder.path().to_owned()), Some("/dev/null/nowhere".into())] {
        let artifact =
            Artifact::from_bytes(guest.component(), &LoadOptions { cache_directory, ..apart() }).await.unwrap();
        assert_eq!(artifact.contract_version(), "0.1.0");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_some(), "nothing is kept in the cache");
}

#[tokio::test]
async fn what_cannot_be_compiled_is_refused_in_the_same_words() {
    let mut broken = Guest::new().component();
    broken.truncate(broken.len() / 2);
    let here = Artifact::from_bytes(broken.clone(), &LoadOptions::default()).await.err().unwrap();
    let apart = Artifact::from_bytes(broken, &apart()).await.err().unwrap();
    assert_eq!((here.kind, here.message), (apart.kind, apart.message));
}

#[tokio::test]
async fn a_compiler_that_is_not_there_is_a_fault() {
    let compiler = Some(Compiler::new("/nowhere/tidegate", []));
    let options = LoadOptions { compiler, ..LoadOptions::default() };
    let fault = Artifact::from_bytes(Guest::new().component(), &options).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::Compilation);
    assert!(fault.message.contains("cannot be started"), "{fault}");
}
