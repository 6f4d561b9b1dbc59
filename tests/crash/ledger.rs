//! The ledger of hosts and commands killed at any instant: an entry is there if and only if what it tells of was done.

use std::time::Duration;

use super::{PATIENCE, Random};
use crate::support::binary::Folder;
use crate::support::on_both;
use crate::support::place::Place;

const ROUNDS: usize = 40;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Each update tells of itself in a table that no ledger knows of.
fn updates() -> String {
    let update = |name: &&str| {
        format!("[[update]]\nname = \"{name}\"\nkind = \"sql\"\nsql = \"insert into effects values ('{name}')\"\n")
    };
    NAMES.iter().map(update).collect()
}

/// What speaks against the ledger, by what the database shows at this instant: one statement, and so one snapshot.
async fn wrong(place: &Place) -> Vec<String> {
    let names: Vec<String> = NAMES.iter().map(|name| format!("select '{name}' as name")).collect();
    let count = |action: &str| {
        format!("(select count(*) from tidegate_ledger l where l.update_name = n.name and l.action = '{action}')")
    };
    let (queued, started, finished, cancelled) =
        (count("queued"), count("started"), count("finished"), count("cancelled"));
    let counts = format!(
        "select n.name, {queued} as queued, {started} as started, {finished} as finished, {cancelled} as cancelled, \
         (select count(*) from background_updates q where q.update_name = n.name) as rows_there, \
         (select count(*) from effects e where e.name = n.name) as effects from ({}) n",
        names.join(" union all ")
    );
    // Rows come and go in turn.
    let twice = "select l.update_name, l.action from tidegate_ledger l \
         where l.action in ('queued', 'finished', 'cancelled') and (l.action = 'queued') = coalesce((select m.action = 'queued' \
         from tidegate_ledger m where m.update_name = l.update_name and m.id < l.id \
         and m.action in ('queued', 'finished', 'cancelled') order by m.id desc limit 1), 1 = 0)";
    let pause = "select 'pause', action from (select action from tidegate_ledger where action in ('paused', 'resumed') \
         order by id desc limit 1) p where (action = 'paused') <> (select count(*) = 1 from tidegate_state where key = 'pause')";
    let by_sql = "select update_name, action from tidegate_ledger where actor = 'sql'";
    let all = format!(
        "select 'counts', c.name || ': ' || queued || ' ' || started || ' ' || finished || ' ' || cancelled || ' ' || rows_there \
         || ' ' || effects from ({counts}) c where queued <> finished + cancelled + rows_there or finished <> effects \
         or started <> finished union all select 'twice', t.update_name || ' ' || t.action from ({twice}) t \
         union all select 'pause', s.action from ({pause}) s union all select 'sql', b.update_name from ({by_sql}) b"
    );
    place.rows(&all).await
}

on_both! {
    async fn an_entry_is_there_if_and_only_if_what_it_tells_of_was_done(place: Place) {
        place.prepared().await.close().await;
        place.run("create table effects (name text not null)").await;
        let folder = Folder::new(place, "sleep_enabled = false\npoll_interval_ms = 20", "", &updates());
        let mut random = Random::seeded();
        for round in 0..ROUNDS {
            let mut host = folder.start(&["run"]);
            let mut commands = Vec::new();
            for number in 0..6 {
                let name = NAMES[(random.next() % 4) as usize];
                let arguments = match (number, random.next() % 7) {
                    // Paused first, so that there is something to cancel.
                    (2, _) => vec!["pause"],
                    (4, _) => vec!["cancel", name],
                    (_, 0) => vec!["cancel", name],
                    (5, _) | (_, 1) => vec!["resume"],
                    _ => vec!["enqueue", name],
                };
                commands.push(folder.start(&arguments));
                tokio::time::sleep(random.duration(Duration::from_millis(60))).await;
                // Not every one is killed.
                if random.next().is_multiple_of(2) && let Some(command) = commands.last_mut() {
                    command.kill();
                }
            }
            tokio::time::sleep(random.duration(Duration::from_millis(200))).await;
            host.kill();
            commands.iter_mut().for_each(super::super::support::binary::Process::kill);
            assert_eq!(wrong(place).await, Vec::<String>::new(), "after round {round}: {}", host.said());
        }
        folder.tidegate(&["resume"]).await;
        let mut last = folder.start(&["run", "--until-done"]);
        assert_eq!(last.end(PATIENCE).await, 0, "{}", last.said());
        assert_eq!(wrong(place).await, Vec::<String>::new());
        let counts = place.rows("select action, count(*) from tidegate_ledger group by action order by action").await;
        println!("{counts:?}");
        for action in ["queued", "started", "finished", "cancelled", "paused", "resumed"] {
            assert!(counts.iter().any(|count| count.starts_with(action)), "{counts:?}");
        }
    }
}
