//! Disks that do not take a trace, or take it late: the work goes on, and the trace says what it lacks.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tidegate::scheduler::event::EventKind;
use tidegate_simulate::trace::Recorder;

use super::lines;
use crate::controllers::{assert_done, site_with_batches};
use crate::support::components::Guest;
use crate::support::disk::Disk;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::recorder::Recorder as Recording;
use crate::support::run::{Run, make_items, touch, touched};

on_both! {
    /// Nobody reads the pipe: it takes what the kernel keeps, and then nothing for ever.
    async fn a_disk_that_does_not_answer_holds_nothing_up(place: Place) {
        let site = site_with_batches(place, &Guest::new().min_batch_size("(i32.const 1)").component(), "", 1).await;
        let pipe = site.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        let run = site.tidegate(&["run", "--until-done", "--record", "pipe", "--record-overwrite"]).await;
        assert_eq!(run.code, 0, "{}", run.all());
        assert!(run.err.contains("the trace pipe could not be written to its end"), "{}", run.all());
        assert_done(place, "a pipe").await;
        drop(reader);
    }

    async fn a_full_disk_costs_calls_of_the_trace_and_nothing_else(place: Place) {
        const ITEMS: u32 = 400;
        make_items(place, ITEMS).await;
        let disk = Disk::new(16 << 20);
        let path = disk.path().join("trace.jsonl");
        let trace = Recorder::create(&path, false, Vec::new()).unwrap();
        disk.fill();
        let mut run = Run::on(place, &[row("fill")]).await.define("fill", touch());
        run.settings.max_batch_size = 1;
        run.witnesses.push(Arc::new(trace.clone()));
        let mut running = run.controller(Arc::new(Recording::running())).start();
        let iteration = |kind: &EventKind| matches!(kind, EventKind::IterationEnded { .. }).then_some(());
        for _ in 0..20 {
            running.next("an iteration", iteration).await;
        }
        disk.free();
        let story = running.end().await;
        assert_eq!(story.remaining(), []);
        assert_eq!(touched(place).await, [format!("1|{ITEMS}")]);
        let finished = trace.finish(Duration::from_secs(20)).await;
        assert!(finished.error.is_none() && finished.lost > 0, "{finished:?}");
        // What is there are whole lines, and how many calls are missing stands among them.
        let lines = lines(&path);
        let lost: u64 = lines.iter().filter(|line| line["line"] == "lost").map(|line| line["calls"].as_u64().unwrap()).sum();
        let calls = lines.iter().filter(|line| line["line"] == "call").count() as u64;
        assert_eq!((calls, lost), (finished.calls, finished.lost));
        let end = lines.last().unwrap();
        assert_eq!((&end["line"], &end["lost"]), (&"end".into(), &lost.into()));
        // A start, and for each item on-update, enter, a batch size, exit and drop.
        assert_eq!(calls + lost, 1 + 5 * u64::from(ITEMS + 1));
    }
}
