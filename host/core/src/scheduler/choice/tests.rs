use super::*;
use proptest::prelude::*;

fn row(name: &str, depends_on: &str) -> QueueRow {
    QueueRow { update_name: name.to_owned(), depends_on: Some(depends_on.to_owned()), ..QueueRow::default() }
}

fn quarantined(mut row: QueueRow) -> QueueRow {
    row.failure = Some(Failure { attempts: 5, error: "no".to_owned(), code: None, at_ms: 0, quarantined: true });
    row
}

#[test]
fn each_row_stands_for_itself() {
    let rows = [
        row("a", ""),
        row("b", "a"),
        row("gone", "finished long ago"),
        row("x", "y"),
        row("y", "z"),
        row("z", "x"),
        row("behind the circle", "x"),
        row("itself", "itself"),
        row("unknown", ""),
        quarantined(row("bad", "")),
        row("after the bad one", "bad"),
        QueueRow { progress: r#"{"approval": {"awaited": {"reason": "look"}}}"#.to_owned(), ..row("stopped", "") },
        QueueRow { progress: r#"{"approval": "given"}"#.to_owned(), ..row("approved", "") },
        QueueRow { problem: Some("its name is no text".to_owned()), ..row("x'ff'", "") },
    ];
    let cycle = |names: &[&str]| Standing::Cycle(names.iter().map(|&name| name.to_owned()).collect());
    let after = |name: &str| Standing::DependsOn(name.to_owned());
    assert_eq!(
        assess(&rows, &|name| name != "unknown"),
        [
            Standing::Ready,
            after("a"),
            Standing::Ready,
            cycle(&["x", "y", "z"]),
            cycle(&["y", "z", "x"]),
            cycle(&["z", "x", "y"]),
            after("x"),
            cycle(&["itself"]),
            Standing::Undefined,
            Standing::Quarantined,
            after("bad"),
            Standing::AwaitsApproval("look".to_owned()),
            Standing::Ready,
            Standing::Unreadable("its name is no text".to_owned()),
        ]
    );
}

#[test]
fn what_would_wait_for_nothing_or_for_itself_is_not_queued() {
    let rows = [row("a", ""), row("b", "c")];
    let cycle = |names: &[&str]| Err(Unfit::Cycle(names.iter().map(|&name| name.to_owned()).collect()));
    let check = |names: &[&str], depends_on: &str, force: bool| {
        let wanted: Vec<_> = names.iter().map(|name| (*name, Some(depends_on))).collect();
        check_dependencies(&rows, &wanted, force).map_err(|(behind, why)| {
            assert_eq!(behind, depends_on);
            why
        })
    };
    assert_eq!(check(&["new"], "a", false), Ok(()));
    assert_eq!(check(&["new"], "gone", false), Err(Unfit::NotQueued));
    assert_eq!(check(&["new"], "gone", true), Ok(()));
    assert_eq!(check(&["new"], "new", false), cycle(&["new"]));
    assert_eq!(check(&["c"], "b", true), cycle(&["c", "b"]));
    assert_eq!(check(&["d", "c"], "b", false), cycle(&["c", "b"]));
    assert_eq!(check(&["b"], "gone", false), Ok(()), "it is queued, and stays as it is");
    let job = [("first", None), ("second", Some("first")), ("third", Some("second"))];
    assert_eq!(check_dependencies(&rows, &job, false), Ok(()), "each waits for one that is queued with it");
}

#[test]
fn a_long_circle_is_told_by_its_beginning() {
    let name = |number: usize| format!("u{}", number % 30);
    let rows: Vec<QueueRow> = (0..30).map(|number| row(&name(number), &name(number + 1))).collect();
    let mut told: Vec<String> = (7..27).map(name).collect();
    told.push("\u{2026}".to_owned());
    assert_eq!(assess(&rows, &|_| true)[7], Standing::Cycle(told));
}

#[test]
fn a_roster_says_what_a_look_at_the_queue_would() {
    let rows = vec![row("a", ""), row("b", "a"), row("c", "b"), row("d", "unheard of"), row("e", "a")];
    let ready = |roster: &Roster| roster.ready(Lanes::FIRST).map(|row| row.update_name.clone()).collect::<Vec<_>>();
    let mut roster = Roster::new(rows, Arc::default(), &|name| name != "e");
    assert_eq!(ready(&roster), ["a", "d"]);
    roster.move_on("a", "{\"n\":1}".to_owned());
    assert_eq!(roster.get("a").map(|row| row.progress.as_str()), Some("{\"n\":1}"));
    roster.remove("a", false);
    assert_eq!(ready(&roster), ["b", "d"], "and not what nobody has defined");
    roster.move_on("d", r#"{"approval": {"awaited": {"reason": "look"}}}"#.to_owned());
    assert_eq!(ready(&roster), ["b"], "and not what awaits approval");
    let rows = roster.iter().map(|(row, _)| row.clone()).map(|mut row| {
        row.progress = if row.update_name == "d" { r#"{"approval": "given"}"#.to_owned() } else { row.progress };
        row
    });
    let mut roster = Roster::new(rows.collect(), Arc::default(), &|name| name != "e");
    assert_eq!(ready(&roster), ["b", "d"]);
    roster.fail("b", Failure { attempts: 5, error: "no".to_owned(), code: None, at_ms: 0, quarantined: true });
    assert_eq!(ready(&roster), ["d"]);
    let told: Vec<_> = roster.iter().filter_map(|(row, standing)| standing.explain(row)).collect();
    assert_eq!(told, ["quarantined after 5 attempts: no", "waits for b", "no definition"]);
}

#[test]
fn a_queue_read_anew_is_not_behind_what_was_done_meanwhile() {
    let mut lanes = Lanes::default();
    lanes.put("index", "indexes");
    let lanes = Arc::new(lanes);
    let rows = vec![row("a", ""), row("index", "a"), row("b", "index"), row("c", "")];
    let ready = |roster: &Roster, lane: &str| roster.ready(lane).map(|row| row.update_name.clone()).collect::<Vec<_>>();
    let mut roster = Roster::new(rows.clone(), Arc::clone(&lanes), &|_| true);
    assert_eq!(
        (ready(&roster, Lanes::FIRST), ready(&roster, "indexes")),
        (vec!["a".to_owned(), "c".to_owned()], vec![])
    );
    roster.watch();
    roster.remove("a", false);
    roster.move_on("c", "{\"n\":2}".to_owned());
    roster.renew(rows.clone(), Arc::clone(&lanes), &|_| true);
    assert_eq!(
        (ready(&roster, Lanes::FIRST), ready(&roster, "indexes")),
        (vec!["c".to_owned()], vec!["index".to_owned()])
    );
    assert_eq!(roster.get("c").map(|row| row.progress.as_str()), Some("{\"n\":2}"));
    roster.watch();
    roster.renew(rows, lanes, &|_| true);
    assert_eq!(ready(&roster, Lanes::FIRST), ["a", "c"], "what was done before the queue was read is in it");
}

proptest! {
    /// Whatever ends, in whatever order, leaves what reading the rest of the queue would find.
    #[test]
    fn a_roster_is_kept_up(links in prop::collection::vec(prop::option::of(0_usize..12), 12), ends in prop::collection::vec(0_usize..12, 12)) {
        let link = |link: &Option<usize>| link.map_or(String::new(), |to| to.to_string());
        let rows: Vec<QueueRow> = links.iter().enumerate().map(|(n, to)| row(&format!("{n}"), &link(to))).collect();
        let mut roster = Roster::new(rows.clone(), Arc::default(), &|_| true);
        let mut left = rows;
        for end in ends {
            let name = end.to_string();
            // What is part of a circle does not run, and so does not end.
            if roster.place_of_ready(&name, Lanes::FIRST).is_none() {
                continue;
            }
            roster.remove(&name, false);
            left.retain(|row| row.update_name != name);
            let standings = assess(&left, &|_| true);
            let found: Vec<_> = roster.iter().collect();
            prop_assert_eq!(found, left.iter().zip(&standings).collect::<Vec<_>>());
        }
    }

    /// Run whatever is first until nothing is: what remains is a circle or waits for one.
    #[test]
    fn a_queue_runs_dry_but_for_circles(links in prop::collection::vec(prop::option::of(0_usize..12), 12)) {
        let mut rows: Vec<QueueRow> = links
            .iter()
            .enumerate()
            .map(|(number, link)| row(&number.to_string(), &link.map_or(String::new(), |to| to.to_string())))
            .collect();
        while let Some(next) = assess(&rows, &|_| true).iter().position(|standing| *standing == Standing::Ready) {
            let name = rows[next].update_name.clone();
            let unmet = rows.iter().any(|other| dependency(&rows[next]) == Some(&other.update_name));
            prop_assert!(!unmet, "{name} ran before what it depends on");
            rows.remove(next);
        }
        let standings = assess(&rows, &|_| true);
        let circle = standings.iter().any(|standing| matches!(standing, Standing::Cycle(_)));
        prop_assert!(rows.is_empty() || circle);
    }
}
