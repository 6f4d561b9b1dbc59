//! A database of Synapse's, before and after: row for row.

use serde_json::Value;

use super::{PATIENCE, do_jobs, folder, name_of, queue, sorted, start_jobs, table, unpacked, until_done};
use crate::support::api::Api;
use crate::support::on_both;
use crate::support::place::Place;
use crate::support::until;

const SERVER: &str = "peer.localhost";
/// Batches of few rooms, so that there are many.
const SMALL: &str =
    "sleep_enabled = false\nmin_batch_size = 1\ndefault_batch_size = 3\nmax_batch_size = 3\npoll_interval_ms = 20";

/// Puts the tables as they were before the jobs there.
async fn load(place: &Place) {
    let sql = unpacked(&format!("{}.sql.gz", name_of(place)));
    place.run(&format!("begin; {sql} commit;")).await;
    place.recommended().await;
    place.prepared().await.close().await;
}

/// What differs from the tables as Synapse left them.
async fn differences(place: &Place) -> Vec<String> {
    let expected: Value = serde_json::from_str(&unpacked(&format!("{}.expected.json.gz", name_of(place)))).unwrap();
    let tables = expected.as_object().unwrap();
    assert_eq!(tables.len(), 10);
    let mut differences = Vec::new();
    for (name, expected) in tables {
        let columns: Vec<&str> =
            expected["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let found = table(place, name, &columns).await;
        let wanted = sorted(expected["rows"].as_array().unwrap().clone());
        let missing = wanted.iter().filter(|row| !found.contains(row)).map(|row| format!("{name} lacks {row}"));
        let others = found.iter().filter(|row| !wanted.contains(row)).map(|row| format!("{name} has {row}"));
        differences.extend(missing.chain(others));
        if found.len() != wanted.len() {
            differences.push(format!("{name} has {} rows, and not {}", found.len(), wanted.len()));
        }
    }
    differences
}

async fn assert_as_synapse_left_it(place: &Place) {
    let differences = differences(place).await;
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

on_both! {
    async fn the_tables_come_out_as_synapses_own_once_and_again(place: Place) {
        load(place).await;
        assert!(differences(place).await.len() > 100);
        do_jobs(place, folder(place, SMALL, SERVER, &[])).await;
        assert_as_synapse_left_it(place).await;
        do_jobs(place, folder(place, "sleep_enabled = false", SERVER, &[])).await;
        assert_as_synapse_left_it(place).await;
    }

    async fn a_host_that_is_killed_half_way_goes_on(place: Place) {
        load(place).await;
        let larger = SMALL.replace("= 3", "= 12");
        let mut api = Api::start_in(folder(place, &larger, SERVER, &[])).await;
        start_jobs(&api).await;
        let mut kills = 0;
        // After each commit that is seen, in whichever update it was.
        loop {
            let before = queue(place).await;
            if before.is_empty() {
                break;
            }
            until("a batch is committed", async || queue(place).await != before).await;
            api.process.kill();
            kills += 1;
            let again = api.folder.start(&["run"]);
            api = Api::of(api.folder, again).await;
        }
        until_done(place, &mut api).await;
        println!("{kills} kills");
        assert!(kills >= 5, "the work was over after {kills} kills: it is too little");
        assert_as_synapse_left_it(place).await;
    }

    async fn check_finds_nothing_wrong_with_the_files(place: Place) {
        load(place).await;
        let folder = folder(place, SMALL, SERVER, &[r"@\_irc\_%"]);
        let mut check = folder.start(&["check"]);
        let code = check.end(PATIENCE).await;
        assert_eq!(code, 0, "{}", check.said());
        assert!(!check.said().contains("warning"), "{}", check.said());
        let mut plan = folder.start(&["check", "--plan"]);
        assert_eq!(plan.end(PATIENCE).await, 0, "{}", plan.said());
    }
}
