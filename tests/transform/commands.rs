//! Transforms as their authors and operators have them: from an empty folder to a finished update, and the dry runs.

use crate::guests::built;
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::Place;

const ROWS: u32 = 10_000;

fn definition(component: &str, more: &str) -> String {
    format!(
        "[[update]]\nname = \"capitals\"\nkind = \"transform\"\ntable = \"items\"\nkey = \"id\"\nread = [\"a\"]\n\
         write = [\"b\"]\ncomponent = {}\n{more}",
        toml::Value::from(component)
    )
}

async fn items(place: &Place, rows: u32) {
    place.recommended().await;
    place.run("CREATE TABLE items (id integer PRIMARY KEY NOT NULL, a text, b text)").await;
    let numbers = place.either(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS) SELECT i, 'straße ' || i FROM n",
        "SELECT i, 'straße ' || i FROM generate_series(1, ROWS) AS i",
    );
    place.run(&format!("INSERT INTO items (id, a) {}", numbers.replace("ROWS", &rows.to_string()))).await;
}

on_both! {
    async fn a_transform_is_checked_tried_queued_and_run(place: Place) {
        items(place, ROWS).await;
        let file = built("rust-upper").display().to_string();
        let settings = "[background_updates]\nsleep_enabled = false\n";
        let site = Site::new(&format!("{settings}[[database]]\nurl = \"{}\"\n{}", place.url, definition(&file, "")));
        let told = site.tidegate(&["enqueue", "capitals"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        let told = site.tidegate(&["check", "--plan"]).await;
        assert!(told.code == 0 && told.out.contains("UPDATE "), "{}", told.all());
        let told = site.tidegate(&["try", "capitals", "--json"]).await;
        assert!(told.code == 0 && told.out.contains("STRASSE "), "{}", told.all());
        assert_eq!(place.rows("SELECT count(b) FROM items").await, ["0"], "a trial leaves nothing behind");
        let told = site.tidegate(&["handler", "test", &file, "--database", &place.url, "--table", "items", "--read", "a", "--write", "b", "--where", "id = 7"]).await;
        assert!(told.code == 0 && told.out.contains("\"straße 7\": null -> \"STRASSE 7\""), "{}", told.all());
        let told = site.tidegate(&["run", "--until-done"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        let wrong = "SELECT count(*), count(CASE WHEN b = 'STRASSE ' || id THEN 1 END) FROM items";
        assert_eq!(place.rows(wrong).await, [format!("{ROWS}|{ROWS}")]);
    }

    async fn a_component_that_cannot_be_had_is_told_before_a_row_is_touched(place: Place) {
        items(place, 10).await;
        let controller = built("hostile").display().to_string();
        let upper = built("rust-upper").display().to_string();
        let pinned = format!("sha256 = \"{}\"\n", "0".repeat(64));
        for (component, more, told) in [
            ("nowhere.wasm", "", "cannot read `"),
            ("tidegate.toml", "", "the file is not WebAssembly"),
            (controller.as_str(), "", "it is a controller, which sets the pace of updates, and no handler"),
            (upper.as_str(), pinned.as_str(), "wrong digest"),
        ] {
            let settings = "[background_updates]\nmax_attempts = 1\nsleep_enabled = false\n";
            let definition = definition(component, more);
            let site = Site::new(&format!("{settings}[[database]]\nurl = \"{}\"\n{definition}", place.url));
            let checked = site.tidegate(&["check"]).await;
            assert!(checked.code == 2 && checked.all().contains(told), "{}", checked.all());
            site.tidegate(&["enqueue", "capitals"]).await;
            let run = site.tidegate(&["run", "--until-done"]).await;
            assert!(run.code == 3 && run.all().contains(told), "{}", run.all());
            site.tidegate(&["cancel", "capitals"]).await;
        }
        assert_eq!(place.rows("SELECT count(b) FROM items").await, ["0"]);
    }
}

#[tokio::test]
async fn handlers_are_made_checked_and_tested_without_a_database() {
    let site = Site::new("");
    let told = site.tidegate(&["handler", "new", "my-addresses", "--language", "rust"]).await;
    assert_eq!(told.code, 0, "{}", told.all());
    let told = site.tidegate(&["handler", "new", "my-addresses", "--language", "rust"]).await;
    assert!(told.code == 2 && told.all().contains("the folder my-addresses is not empty"), "{}", told.all());
    let upper = built("rust-upper").display().to_string();
    let told = site.tidegate(&["handler", "check", &upper]).await;
    assert!(told.code == 0 && told.out.contains("tidegate:handler/transformer@0.1.0"), "{}", told.all());
    let told = site.tidegate(&["handler", "check", "tidegate.toml"]).await;
    assert!(told.code == 2 && told.all().contains("the file is not WebAssembly"), "{}", told.all());
    site.write("rows.json", r#"[["abc"], [null], [7], [{"bytes": "00"}]]"#);
    let told = site.tidegate(&["handler", "test", &upper, "--rows", "rows.json", "--json"]).await;
    assert_eq!(told.code, 4, "{}", told.all());
    let json: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let outcomes: Vec<&str> =
        json["rows"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["write", "write", "fail", "fail"]);
    assert_eq!(json["rows"][0]["write"][0], "ABC");
    let hostile = built("hostile-transform").display().to_string();
    let told = site
        .tidegate(&["handler", "test", &hostile, "--rows", "rows.json", "--set", "deed=trap", "--set", "when=abc"])
        .await;
    assert!(
        told.code == 4 && told.out.contains("\"abc\": fault: the component failed in transform: trap"),
        "{}",
        told.all()
    );
    assert!(told.out.contains("7 -> 7"), "the others go through by themselves: {}", told.all());
    for (rows, wrong) in
        [("{}", "it is no array"), ("[[1], 2]", "row 2 is no array"), ("[[{}]]", "row 1: {} is neither"), ("[", "EOF")]
    {
        site.write("rows.json", rows);
        let told = site.tidegate(&["handler", "test", &upper, "--rows", "rows.json"]).await;
        assert!(told.code == 2 && told.all().contains(wrong), "{rows}: {}", told.all());
    }
}
