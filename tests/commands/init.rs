//! `init` writes configurations that load, and `check` finds nothing wrong with them.

use std::path::Path;

use serde_json::Value;
use tidegate_config::Config;

use crate::assert_told;
use crate::support::command::Site;
use crate::support::on_both;
use crate::support::place::{Place, row};
use crate::support::postgres::{Server, Settings};
use crate::support::run::row_after;

/// A folder without a configuration.
fn empty() -> Site {
    let site = Site::new("");
    std::fs::remove_file(site.path().join("tidegate.toml")).unwrap();
    site
}

fn written(site: &Site) -> String {
    std::fs::read_to_string(site.path().join("tidegate.toml")).unwrap()
}

/// How the file loads, with these variables set.
fn load(site: &Site, variables: &[(&str, &str)]) -> Config {
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let config = Config::load(&site.path().join("tidegate.toml"), &value).unwrap();
    assert_eq!(config.warnings, []);
    config
}

#[tokio::test]
async fn the_example_loads_and_checks_clean_on_an_empty_database() {
    let site = empty();
    rusqlite::Connection::open(site.path().join("app.db")).unwrap().execute_batch("vacuum").unwrap();
    let told = [site.tidegate(&["init"]).await, site.tidegate(&["check"]).await, site.tidegate(&["init"]).await];
    assert_told!(&[], "example", told.map(|told| told.all()).join("\n\n"));
    assert_told!(&[], "example_file", written(&site));
    load(&site, &[]);
}

#[tokio::test]
async fn a_file_that_is_there_is_overwritten_only_by_force() {
    let site = Site::new("# mine\n");
    let refused = site.tidegate(&["init", "--json"]).await;
    assert_eq!((refused.code, written(&site).as_str(), refused.out.as_str()), (1, "# mine\n", ""));
    let error: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(error["error"]["message"], "tidegate.toml is there already, and was left as it is");
    let other = site.tidegate(&["init", "--config", "other.toml"]).await;
    assert_eq!((other.code, written(&site).as_str()), (0, "# mine\n"));
    assert_eq!(site.tidegate(&["init", "--force"]).await.code, 0);
    load(&site, &[]);
    let nowhere = site.tidegate(&["init", "--config", "no/such/folder/tidegate.toml"]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("cannot write no/such/folder/tidegate.toml"), "{}", nowhere.err);
}

on_both! {
    async fn a_configuration_is_grown_from_a_queue(place: Place) {
        let database = place.prepared().await;
        database.enqueue(&row("fill_search_body")).await.unwrap();
        database.enqueue(&row_after("index_search_body", "fill_search_body")).await.unwrap();
        place.run("insert into background_updates (update_name, progress_json, ordering) values \
                   ('odd \"name\"\n[[database]]', '{\"after\":[\"120\"]}', 3)").await;
        database.close().await;
        let before = place.rows("select * from background_updates order by update_name").await;
        let site = empty();
        let told = site.tidegate(&["init", "--database", &place.url]).await;
        let file = written(&site).replace(&place.url, "[url]");
        assert_told!(&[], place.either("grown_sqlite", "grown_postgres"), format!("{}\n\n{file}", told.all()));
        let config = load(&site, &[]);
        assert_eq!((config.databases.len(), config.updates.len()), (1, 0));
        let checked = site.tidegate(&["check"]).await;
        assert!(checked.code == 0 || checked.all().contains("fill_search_body"), "{}", checked.all());
        assert_eq!(place.rows("select * from background_updates order by update_name").await, before);
        let json = site.tidegate(&["init", "--force", "--json", "--database", &place.url]).await;
        let json: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(json["to_fill_in"], serde_json::json!([
            "fill_search_body", "index_search_body", "odd \"name\"\n[[database]]",
        ]));
    }

    async fn an_empty_database_is_looked_at_and_left_as_it_is(place: Place) {
        let site = empty();
        let told = site.tidegate(&["init", "--database", &place.url, "--queue-table", "other_updates"]).await;
        assert_eq!(told.code, 0, "{}", told.all());
        assert!(told.out.contains("nothing is queued there"), "{}", told.out);
        assert_eq!(load(&site, &[]).databases[0].queue_table, "other_updates");
        let checked = site.tidegate(&["check"]).await;
        assert_eq!(checked.code, 0, "{}", checked.all());
        let none: [String; 0] = [];
        assert_eq!(place.rows(place.either(
            "select name from sqlite_schema",
            "select relname from pg_class where relname like '%updates%' or relname like 'tidegate%'",
        )).await, none);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_used_and_not_written() {
    let rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::start(&Settings { files: vec![("pg_hba.conf", rules.to_owned())], ..Settings::default() });
    let place = Place::on(&server).await;
    place.run("create role app login password 'hunter/2'").await;
    place.prepared().await.enqueue(&row("a")).await.unwrap();
    place.run("grant select on all tables in schema public to app").await;
    let site = empty();
    let url = place.url.replace("postgres@", "app:hunter%2F2@");
    let told = site.tidegate(&["init", "--database", &url]).await;
    assert_eq!(told.code, 0, "{}", told.all());
    assert!(told.out.contains("set TIDEGATE_DATABASE_PASSWORD to it"), "{}", told.out);
    assert!(!written(&site).contains("hunter"), "{}", written(&site));
    let config = load(&site, &[("TIDEGATE_DATABASE_PASSWORD", "hunter%2F2")]);
    let tidegate_config::Target::Postgres { url: read, .. } = &config.databases[0].target else { panic!() };
    assert_eq!(read.reveal(), url);
    // A wrong one is no secret of the message either.
    let wrong = site.tidegate(&["init", "--force", "--database", &url.replace("hunter%2F2", "hunter%2F3")]).await;
    assert!(wrong.code == 1 && !wrong.all().contains("hunter"), "{}", wrong.all());
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_and_nothing_is_written() {
    let site = empty();
    let mut told = Vec::new();
    for url in ["mysql://db/app", "sqlite:missing.db", "sqlite::memory:", "postgres://app:${NO_SUCH_VARIABLE}@db/app"] {
        told.push(format!(
            "$ tidegate init --database {url}\n{}",
            site.tidegate(&["init", "--database", url]).await.all()
        ));
    }
    assert_told!(&[], "unusable", told.join("\n\n"));
    assert!(!site.path().join("tidegate.toml").exists());
}

#[tokio::test]
async fn a_path_means_the_same_in_another_folder() {
    let site = empty();
    let place = Place::sqlite();
    std::fs::copy(place.file(), site.path().join("app.db")).unwrap();
    std::fs::create_dir(site.path().join("etc")).unwrap();
    let told = site.tidegate(&["init", "--config", "etc/tidegate.toml", "--database", "sqlite:app.db"]).await;
    assert_eq!(told.code, 0, "{}", told.all());
    let checked = site.tidegate(&["check", "--config", "etc/tidegate.toml"]).await;
    assert_eq!(checked.code, 0, "{}", checked.all());
    assert!(Path::new(&site.path().join("etc/tidegate.toml")).exists());
}
