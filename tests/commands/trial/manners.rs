//! Whom it disturbs, what it refuses, and what it says of itself.

use tidegate::scheduler::database::LeaseAttempt;

use crate::assert_told;

use super::{catalogue, dump, site, tried};
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::pgbouncer::Pooler;
use crate::support::place::{Place, holder, row};

const FILL: &str = "kind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"v = v || '!'\"";

async fn make_items(place: &Place, rows: u32) {
    let made = "create table items (id integer primary key, v text not null);";
    let filled = place.either(
        "with recursive g (n) as (select 1 union all select n + 1 from g where n < ROWS) insert into items select n, 'v' from g",
        "insert into items select n, 'v' from generate_series(1, ROWS) n",
    );
    place.run(&format!("{made} {}", filled.replace("ROWS", &rows.to_string()))).await;
}

/// A site whose `[[database]]` has more keys.
fn with_keys(place: &Place, keys: &str, definition: &str) -> Site {
    let site = site(place, definition);
    let path = site.path().join("tidegate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    site.write("tidegate.toml", text.replacen("name = \"app\"", &format!("name = \"app\"\n{keys}"), 1));
    site
}

on_both! {
    /// Somebody else has the lease and the update is in the midst of its walk: `try` is none of their business.
    async fn a_host_keeps_its_lease_and_the_queue_its_progress(place: Place) {
        make_items(place, 50).await;
        let database = place.prepared().await;
        let LeaseAttempt::Held(lease) = database.try_lease(&holder(1)).await.unwrap() else { panic!("no lease") };
        database.enqueue(&row("x")).await.unwrap();
        place.run("update background_updates set progress_json = '{\"somebody\": \"else\"}'").await;
        let own = async || {
            let mut own = Vec::new();
            for table in ["background_updates", "tidegate_state", "tidegate_failures", "tidegate_history"] {
                own.extend(place.rows(&format!("select * from {table}")).await);
            }
            own.extend(place.rows("select queue, epoch from tidegate_lease").await);
            (own, dump(place).await, catalogue(place).await)
        };
        let before = own().await;
        let told = tried(&site(place, FILL), &["--rows", "10"]).await;
        assert_eq!(told["batches"].as_array().unwrap().len(), 3);
        assert_eq!(told["batches"][0]["rows"].as_array().unwrap().len(), 10);
        assert_eq!(own().await, before);
        assert_eq!(database.progress("x").await.unwrap().unwrap(), "{\"somebody\": \"else\"}");
        lease.release().await;
    }

    /// Whoever holds a lock is waited for no longer than a batch would wait.
    async fn a_lock_of_others_is_waited_for_as_long_as_configured(place: Place) {
        make_items(place, 50).await;
        let keys = place.either("busy_timeout_ms = 50", "lock_timeout_ms = 50");
        let site = with_keys(place, keys, FILL);
        let locked = place.lock_items().await;
        let told = site.tidegate(&["try", "x"]).await;
        assert_eq!(told.code, 1, "{}", told.all());
        assert!(told.err.contains("lock"), "{}", told.all());
        drop(locked);
        assert_eq!(tried(&site, &["--at", "0%"]).await["batches"][0]["items"], 50);
    }

    /// A batch that goes on for ever is given up, and what it had locked is free again.
    async fn a_batch_that_takes_too_long_is_given_up(place: Place) {
        make_items(place, 50).await;
        let set = place.either(
            "v = (with recursive g (n) as (select 1 union all select n + 1 from g) select max(n) from g)",
            "v = pg_sleep(600)::text",
        );
        let site = site(place, &format!("kind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"{set}\""));
        let before = dump(place).await;
        let told = site.tidegate(&["try", "x", "--limit-ms", "200"]).await;
        assert_eq!(told.code, 1, "{}", told.all());
        assert!(told.err.contains("it was given up after 200 ms, and nothing of it stays"), "{}", told.all());
        assert_eq!(dump(place).await, before);
        // Nobody is in the way of a writer any more.
        place.run("update items set v = 'w'").await;
    }

    /// What fails as the batch would fail is told with the place, and leaves nothing.
    async fn a_batch_that_fails_says_where(place: Place) {
        make_items(place, 50).await;
        let site = site(place, &FILL.replace("v || '!'", "case when id > 40 then null else v end"));
        let before = dump(place).await;
        let told = site.tidegate(&["try", "x", "--rows", "20", "--at", "0%,90%"]).await;
        assert_eq!(told.code, 1, "{}", told.all());
        assert!(told.err.contains("the batch at 90% fails"), "{}", told.all());
        assert_eq!(dump(place).await, before);
    }

    /// What is in the rows cannot write to the terminal, and what is long is cut at both ends' expense.
    async fn values_are_shown_short_and_harmless(place: Place) {
        place.run("create table items (id integer primary key, v text, w text)").await;
        let odd = "a\u{1b}[2J\u{202e}b\u{200b}";
        let long = "x".repeat(5_000);
        place.run(&format!("insert into items values (1, '{odd}', '{long}y')")).await;
        let site = site(place, "kind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\nset = \"v = v || 'c', w = w || 'z'\"");
        let told = site.tidegate(&["try", "x", "--at", "0%"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        assert!(told.out.contains("'a\\u{1b}[2J\\u{202e}b\\u{200b}' -> 'a\\u{1b}[2J\\u{202e}b\\u{200b}c'"), "{}", told.out);
        let ends = |end: &str, all: u32| format!("'{}…{}{end} ({all} in all)'", "x".repeat(60), "x".repeat(20 - end.len()));
        assert!(told.out.contains(&format!("{} -> {}", ends("y", 5_001), ends("yz", 5_002))), "{}", told.out);
        assert!(told.out.lines().all(|line| line.len() < 400), "{}", told.out);
    }

    async fn what_cannot_be_tried_is_refused_with_what_to_do(place: Place) {
        make_items(place, 5).await;
        let refused = [
            ("kind = \"create-index\"\ntable = \"items\"\nindex = \"i\"\ncolumns = [\"v\"]", "build it on a copy of the"),
            ("kind = \"sql\"\nsql = \"create table made (a int)\"", "run it on a copy of the database"),
            ("kind = \"sql\"\nsql = \"update items set v = 'a'; drop table items\"", "run it on a copy of the database"),
            ("kind = \"noop\"", "there is nothing to try"),
        ];
        let before = (dump(place).await, catalogue(place).await);
        for (definition, expected) in refused {
            let told = site(place, definition).tidegate(&["try", "x"]).await;
            assert_eq!(told.code, 1, "{}", told.all());
            assert!(told.err.contains(expected), "{}", told.all());
        }
        let site = site(place, &FILL.replace("v ||", "nothing ||"));
        for (arguments, code, expected) in [
            (&["try", "y"][..], 2, "nothing defines update \"y\""),
            (&["try", "x", "--at", "50"], 2, "\"50\" is no place"),
            (&["try", "x", "--at", "0%,100%"], 2, "\"100%\" is no place"),
            (&["try", "x", "--rows", "0"], 2, "0 is not in 1..=100000"),
            (&["try", "x", "--database", "z"], 2, "there is no [[database]] named \"z\""),
            (&["try", "x"], 2, "cannot run on database \"app\""),
        ] {
            let told = site.tidegate(arguments).await;
            assert_eq!(told.code, code, "{}", told.all());
            assert!(told.err.contains(expected), "{}", told.all());
        }
        assert_eq!((dump(place).await, catalogue(place).await), before);
    }

    /// A script of plain statements is done as a whole; and so is a validation.
    async fn what_has_no_batches_is_tried_as_a_whole(place: Place) {
        make_items(place, 30).await;
        let before = dump(place).await;
        let script = site(place, "kind = \"sql\"\nsql = \"update items set v = 'a' where id < 11\"");
        let told = tried(&script, &[]).await;
        assert_eq!(told["whole"], true);
        let table = &told["batches"][0]["tables"][0];
        assert_eq!((&table["table"], &table["updated"]), (&"items".into(), &10.into()), "{told}");
        place
            .run(place.either(
                "create table checked (id integer primary key, constraint c check (id > 0))",
                "create table checked (id int primary key); alter table checked add constraint c check (id > 0) not valid",
            ))
            .await;
        let validated = tried(&site(place, "kind = \"validate-constraint\"\ntable = \"checked\"\nconstraint = \"c\""), &[]).await;
        assert_eq!(validated["batches"][0]["tables"].as_array().unwrap().len(), 0, "{validated}");
        let after = dump(place).await;
        assert_eq!(after["items"], before["items"]);
    }
}

/// The page of the book shows what is printed of this.
#[tokio::test(flavor = "multi_thread")]
async fn it_tells_a_person() {
    const MASKS: &[(&str, &str)] = &[
        (r"\b\d[\d.]*(?:ms|s|m)\b", "[time]"),
        (r"\b\d[\d.]* (?:B|KiB|MiB)\b", "[bytes]"),
        (r"\b\d+ bytes a row", "[bytes] a row"),
        (r"id = \d{3,}", "id = [number]"),
    ];
    let place = Place::postgres().await;
    place
        .run(
            "create table orders (id int primary key, note text, cents int);
             create table changes (id serial primary key, order_id int, at timestamptz default now());
             insert into orders (id, note) select n, 'order ' || n from generate_series(1, 50000) n;
             create function note_change() returns trigger language plpgsql as
             $$ begin insert into changes (order_id) values (new.id); return null; end $$;
             create trigger orders_change after update on orders for each row execute function note_change();
             analyze",
        )
        .await;
    let site = site(&place, "kind = \"backfill\"\ntable = \"orders\"\nkey = \"id\"\nset = \"cents = id % 900\"");
    let told = site.tidegate(&["try", "x", "--at", "0%,50%"]).await;
    println!("{}", told.all());
    assert_told!(MASKS, "try", told.all());
}

/// A sequence that was drawn from, by a trigger as well, is named, and stands where it says.
#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_moved_on_are_named() {
    let place = Place::postgres().await;
    make_items(&place, 20).await;
    place
        .run(
            "create schema odd; create sequence odd.\"Numbers\"; create sequence untouched; \
             create function f() returns trigger language plpgsql as \
             $$ begin perform nextval('odd.\"Numbers\"'); return new; end $$; \
             create trigger t before update on items for each row execute function f()",
        )
        .await;
    let site = site(&place, FILL);
    let told = tried(&site, &["--at", "0%"]).await;
    assert_eq!(told["stays"]["sequences"], serde_json::json!(["odd.\"Numbers\""]));
    assert_eq!(told["stays"]["dead_rows"], 20);
    assert_eq!(place.rows("select last_value from odd.\"Numbers\"").await, ["20"]);
    let shown = site.tidegate(&["try", "x"]).await;
    assert!(shown.out.contains("what stays behind: sequence odd.\"Numbers\" has moved on"), "{}", shown.out);
}

/// Behind a pooler whose sessions are everybody's: it works, and nothing of its settings is met by others.
#[tokio::test(flavor = "multi_thread")]
async fn it_works_behind_a_pooler_in_transaction_mode() {
    let place = Place::postgres().await;
    make_items(&place, 50).await;
    let pooler = Pooler::start(&place.url, "transaction", "default_pool_size = 2");
    let pooled = place.by_way_of(pooler.url(&place.url));
    let before = (dump(&place).await, catalogue(&place).await);
    let told = tried(&with_keys(&pooled, "lock_timeout_ms = 1234", FILL), &["--rows", "20"]).await;
    assert_eq!(told["batches"][1]["tables"][0]["updated"], 20, "{told}");
    assert_eq!(pooled.rows("show lock_timeout").await, ["0"]);
    assert_eq!((dump(&place).await, catalogue(&place).await), before);
}

/// The policies of row-level security have the same say as in a run.
#[tokio::test(flavor = "multi_thread")]
async fn policies_count_as_in_a_run() {
    let place = Place::postgres().await;
    make_items(&place, 40).await;
    let (own, role) = place.as_own_role().await;
    place
        .run(&format!(
            "alter table items enable row level security; create policy p on items to {role} using (id % 2 = 0)"
        ))
        .await;
    let refused = site(&own, FILL).tidegate(&["try", "x"]).await;
    assert_eq!(refused.code, 2, "{}", refused.all());
    let told = tried(&site(&own, &format!("{FILL}\nrow_security = true")), &["--at", "0%"]).await;
    assert_eq!(told["batches"][0]["rows"].as_array().unwrap().len(), 20, "{told}");
    assert_eq!(told["batches"][0]["tables"][0]["updated"], 20, "{told}");
    place.run(&format!("revoke update on items from {role}")).await;
    let refused = site(&own, &format!("{FILL}\nrow_security = true")).tidegate(&["try", "x"]).await;
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.err.contains("lacks UPDATE"), "{}", refused.all());
}
