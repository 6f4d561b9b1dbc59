//! The controllers of `guests/` at work, through the program.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{ITEMS, assert_done, site};
use crate::guests::{built, minimal};
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::run::touched;

/// A liveness bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// The iterations as the history has them, and items per batch asked for.
async fn history(place: &Place) -> (Vec<Value>, Vec<u64>) {
    let rows = place.rows("select record from tidegate_history order by id").await;
    let records: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let sizes = records.iter().map(|record| record["batch_size"].as_u64().unwrap()).collect();
    (records, sizes)
}

async fn run(place: &Place, guest: &str, settings: &str) {
    let component = std::fs::read(built(guest)).unwrap();
    let site = site(place, &component, &format!("[controller.settings]\n{settings}")).await;
    let check = site.tidegate(&["check"]).await;
    let in_order = "tidegate.toml is in order: 1 database, 1 controller, 1 update";
    assert!(check.code == 0 && check.out.starts_with(in_order), "{}", check.all());
    let run = site.tidegate(&["run", "--until-done"]).await;
    assert!(run.code == 0 && !run.err.contains("controller guest"), "{}", run.all());
    assert_done(place, guest).await;
}

on_both! {
    async fn rust_steady_sleeps_and_aims_as_its_settings_say(place: Place) {
        run(place, "rust-steady", "sleep_duration_ms = 20\nbackground_update_duration_ms = 0\nmin_batch_size = 50\n").await;
        let (records, sizes) = history(place).await;
        assert_eq!(sizes[..4], [100, 50, 50, 50]);
        for record in &records {
            assert!(record["waited_ms"].as_f64().unwrap() >= 20.0, "{record}");
            assert_eq!(record["wait_reason"], "sleep between iterations");
            assert_eq!((&record["controller"], &record["target_ms"]), (&"guest".into(), &0.into()));
            assert!(record["fuel"].as_u64().unwrap() > 0, "{record}");
        }
    }

    async fn wat_minimal_is_enough(place: Place) {
        let site = site(place, &minimal(), "").await;
        let run = site.tidegate(&["run", "--until-done"]).await;
        assert!(run.code == 0 && !run.err.contains("controller guest"), "{}", run.all());
        assert_done(place, "wat-minimal").await;
        assert!(history(place).await.0.iter().all(|record| record["target_ms"] == 100));
    }

    async fn rust_office_hours_holds_until_its_hours_and_tells_when_they_begin(place: Place) {
        let component = std::fs::read(built("rust-office-hours")).unwrap();
        let days_since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
        // The day after tomorrow, in UTC; the first day of 1970 was a Thursday.
        let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days_since_1970 as usize + 2) % 7];
        let settings = format!("[controller.settings]\nwindows = \"{day} 12:00-12:01\"\n");
        let elsewhere = place.another().await;
        let site = site(&elsewhere, &component, &settings).await;
        let mut host = site.start(&["run"]);
        host.says(&format!("held: outside its hours: next window begins {day} 12:00 UTC"), PATIENCE).await;
        host.signal("TERM");
        assert_eq!(host.end(PATIENCE).await, 0, "{}", host.said());
        assert_eq!(touched(&elsewhere).await, [format!("0|{ITEMS}")], "a row was touched");
        run(place, "rust-office-hours", "windows = \"00:00-24:00\"\ntarget_ms = 30\n").await;
        assert!(history(place).await.0.iter().all(|record| record["target_ms"] == 30));
    }

    async fn c_fixed_has_no_batch_sizes_so_that_the_configuration_counts(place: Place) {
        run(place, "c-fixed", "target_ms = 0\n").await;
        let (records, sizes) = history(place).await;
        assert_eq!(sizes[..10], [100; 10]);
        let items: u64 = records.iter().map(|record| record["items"].as_u64().unwrap()).sum();
        assert_eq!(items, u64::from(ITEMS));
        assert!(records.iter().all(|record| record["waited_ms"] == 0.0 && record["wait_reason"].is_null()));
    }
}
