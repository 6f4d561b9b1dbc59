//! What SQLite alone does to triggers.

use std::sync::Arc;

use super::{UNLIKE, copy, make, problems};
use crate::support::place::{Place, row};
use crate::support::run::Run;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_rows_that_replace_others_and_says_which_it_cannot() {
    let place = Place::sqlite();
    make(&place, 20).await;
    let run = Run::on(&place, &[row("copy")]).await;
    let story = run.define("copy", Arc::new(copy(None))).until_done().await;
    assert_eq!(story.remaining(), []);
    let unlike = UNLIKE.replace(" where n % 3 <> 0", "");
    for write in [
        "insert or replace into items (id, a, n) values (10, 'replaced', 1)",
        "replace into items (id, a, n) values (20, 'replaced', 1), (21, 'new', 1)",
        "pragma recursive_triggers = on; replace into items (id, a, n) values (20, 'once more', 1)",
        "update or replace items set id = 30 where id = 40",
    ] {
        place.run(write).await;
        assert_eq!(place.rows(&unlike).await, ["0"], "{write}");
    }
    assert!(!problems(&place, &copy(None)).await.iter().any(|told| told.contains("INSERT OR REPLACE")));
    place.run("create unique index items_n on items (a)").await;
    let told = problems(&place, &copy(None)).await;
    assert!(told.iter().any(|told| told.starts_with("Warning keep: where INSERT OR REPLACE")), "{told:?}");
}
