//! Databases that are not there or refuse: what is wrong, what to do, and the exit code.

use super::configuration;
use crate::assert_told;
use crate::support::command::Site;
use crate::support::place::Place;
use crate::support::postgres::{Server, Settings};
use crate::support::run::make_items;

const COMMANDS: [&[&str]; 5] =
    [&["status"], &["check"], &["enqueue", "touch_items"], &["retry", "--all"], &["run", "--until-done"]];

/// What each command says of a database that it cannot use; none may show the password.
async fn each_command(url: &str) -> String {
    let site = Site::new(&configuration(url));
    let mut report = Vec::new();
    for arguments in COMMANDS {
        let told = site.tidegate(arguments).await;
        assert!(!told.all().contains("hunter2"), "{arguments:?} shows the password: {}", told.all());
        assert!(told.code == 1 || told.code == 2, "{arguments:?}: {}", told.all());
        report.push(format!("$ tidegate {}\n{}", arguments.join(" "), told.all()));
    }
    report.join("\n\n")
}

#[tokio::test]
async fn a_file_that_is_missing_or_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    assert_told!(&[], "file_missing", each_command(&format!("sqlite:{}", file.display())).await);
    assert!(!file.exists(), "a command made the file");
    std::fs::write(&file, "this is a text and no database, whatever its name says; ".repeat(100)).unwrap();
    assert_told!(&[], "not_a_database", each_command(&format!("sqlite:{}", file.display())).await);
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    // Whoever listens at a port and goes away leaves one at which nobody does.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/app");
    assert_told!(&[], "no_server", each_command(&url).await);
}

#[tokio::test]
async fn a_server_that_refuses() {
    let rules = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::start(&Settings { files: vec![("pg_hba.conf", rules.to_owned())], ..Settings::default() });
    let place = Place::on(&server).await;
    make_items(&place, 10).await;
    place.run("create role app login password 'correct'").await;
    let masks = &[(r"test_\d+", "[database]")];
    let with = |user: &str| place.url.replace("postgres@", &format!("{user}@"));
    assert_told!(masks, "wrong_password", each_command(&with("app:hunter2")).await);
    assert_told!(masks, "no_password", each_command(&with("app")).await);
    assert_told!(masks, "no_such_database", each_command(&format!("{}_not", place.url)).await);
    let rights = "revoke create on schema public from public";
    place.run(rights).await;
    assert_told!(masks, "no_rights", each_command_that_writes(&with("app:correct")).await);
}

/// Without rights, who only looks has nothing to complain of: nothing is there to be read, and no update has failed.
async fn each_command_that_writes(url: &str) -> String {
    let site = Site::new(&configuration(url));
    let mut report = Vec::new();
    for arguments in COMMANDS {
        let told = site.tidegate(arguments).await;
        assert!(!told.all().contains("correct@"), "{arguments:?} shows the password: {}", told.all());
        assert_eq!(told.code == 0, ["status", "retry"].contains(&arguments[0]), "{arguments:?}: {}", told.all());
        report.push(format!("$ tidegate {}\n{}", arguments.join(" "), told.all()));
    }
    report.join("\n\n")
}

#[tokio::test]
async fn a_role_that_may_only_read_can_look() {
    let place = Place::postgres().await;
    make_items(&place, 10).await;
    let site = super::site(&place);
    assert_eq!(site.tidegate(&["enqueue", "touch_items"]).await.code, 0);
    let database = place.rows("select current_database()").await.remove(0);
    let reader = format!("reader_of_{database}");
    place
        .run(&format!(
            "create role {reader} login; grant select on all tables in schema public to {reader};
             alter role {reader} set default_transaction_read_only = on"
        ))
        .await;
    let site = Site::new(&configuration(&place.url.replace("postgres@", &format!("{reader}@"))));
    let told = site.tidegate(&["status"]).await;
    assert!(told.code == 0 && told.out.contains(" touch_items  pending"), "{}", told.all());
}

#[tokio::test]
async fn a_url_that_makes_no_sense() {
    let mut report = Vec::new();
    for url in [
        "host=db dbname=app password=hunter2",
        "postgres://app:hunter2@db:port/app",
        "postgres://app:hunter2@db/app?sslmode=perhaps",
        "postgres://app:hunter2@/app",
    ] {
        let site = Site::new(&configuration(url));
        let told = site.tidegate(&["status"]).await;
        assert!(!told.all().contains("hunter2"), "{}", told.all());
        report.push(told.all());
    }
    assert_told!(&[], "urls", report.join("\n\n"));
}
