//! Traces that cannot be read, and those that are there already: each error says where and what to do.

use crate::assert_told;
use crate::controllers::site_with_batches;
use crate::support::command::{Site, Told};
use crate::support::components::Guest;
use crate::support::place::Place;

/// A folder with a controller and a trace of it.
async fn recorded() -> (Place, Site, String) {
    let place = Place::sqlite();
    let site = site_with_batches(&place, &Guest::new().component(), "", 100).await;
    let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
    assert_eq!(run.code, 0, "{}", run.all());
    let trace = std::fs::read_to_string(site.path().join("trace.jsonl")).unwrap();
    (place, site, trace)
}

async fn replay(site: &Site, trace: impl AsRef<[u8]>, more: &[&str]) -> Told {
    site.write("other.jsonl", trace);
    site.tidegate(&[&["controller", "replay", "guest.wasm", "other.jsonl"], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_trace_is_told_with_its_line() {
    let (_place, site, trace) = recorded().await;
    let lines: Vec<&str> = trace.lines().collect();
    let without_end = format!("{}\n", lines[..lines.len() - 1].join("\n"));
    let cut = &trace[..trace.len() - 10];
    let changed = trace.replacen("\"call\":\"on-update\"", "\"call\":\"on-upgrade\"", 1);
    let shapes = [
        ("empty", String::new()),
        ("another file", "name = \"x\"\n".to_owned()),
        ("other JSON", "{\"name\": \"x\"}\n".to_owned()),
        ("a newer version", trace.replacen("\"tidegate_trace\":1", "\"tidegate_trace\":2", 1)),
        ("cut within a line", cut.to_owned()),
        ("cut between lines", without_end.clone()),
        ("a changed line", changed),
        ("a second trace behind it", format!("{trace}{trace}")),
    ];
    let mut told = String::new();
    for (case, text) in shapes {
        let answer = replay(&site, &text, &[]).await;
        assert_eq!(answer.code, 1, "{case}: {}", answer.all());
        told.push_str(&format!("-- {case}\n{}\n", answer.all()));
    }
    let masks = [(r"line \d\d+:", "line [n]:")];
    assert_told!(&masks, "wrong_traces", told);
    // What a killed host left can be used all the same.
    for text in [cut, &without_end] {
        let partial = replay(&site, text, &["--partial"]).await;
        assert!(partial.code == 0 && partial.out.contains("it breaks off"), "{}", partial.all());
    }
    let binary = replay(&site, [0xff, 0xfe, 0x00], &[]).await;
    assert!(binary.code == 1 && binary.err.contains("it is not text"), "{}", binary.all());
    let missing = site.tidegate(&["controller", "replay", "guest.wasm", "gone.jsonl"]).await;
    assert!(missing.code == 1 && missing.err.contains("No such file"), "{}", missing.all());
    let component = site.tidegate(&["controller", "replay", "gone.wasm", "trace.jsonl"]).await;
    assert!(component.code == 1 && component.err.contains("cannot read gone.wasm"), "{}", component.all());
    site.write("core.wasm", b"\0asm\x01\0\0\0");
    let core = site.tidegate(&["controller", "replay", "core.wasm", "trace.jsonl"]).await;
    assert!(core.code == 1 && core.err.contains("not a component"), "{}", core.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_there_is_replaced_only_where_that_is_said() {
    let (_place, site, trace) = recorded().await;
    let path = site.path().join("trace.jsonl");
    site.tidegate(&["enqueue", "touch_items"]).await;
    let refused = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl"]).await;
    assert_told!(&[], "a_trace_that_is_there", refused.all());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), trace, "it was touched");
    // Whatever rights the old one had.
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = site.tidegate(&["run", "--until-done", "--record", "trace.jsonl", "--record-overwrite"]).await;
    assert_eq!(run.code, 0, "{}", run.all());
    assert_ne!(std::fs::read_to_string(&path).unwrap(), trace);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let nowhere = site.tidegate(&["run", "--until-done", "--record", "no/such/folder/trace.jsonl"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("cannot record to no/such/folder"), "{}", nowhere.all());
}
