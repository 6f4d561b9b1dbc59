//! The configuration file: what each mistake in it is told to the person who made it, and what a file in order means.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::controller::Fallback;
use tidegate::signal::Part;
use tidegate::update::sql::TableName;
use tidegate::update::{
    BackfillDefinition, BatchDefinition, ConstraintKind, CopyColumn, CopyDefinition, CopySource, CreateIndexDefinition,
    DeleteDefinition, IndexParts, OnConflict, ScriptDefinition, Setting, Settings, ValidateAndDeleteDefinition,
    ValidateConstraintDefinition,
};
use tidegate_config::{Config, Databases, Diagnostic, SignalSource, Target, UpdateKind};

/// The least that a file must have.
const DATABASE: &str = "[[database]]\nurl = \"sqlite:app.db\"\n";

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2".to_owned()),
        "HOST" => Some("db.example.org".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
    Config::parse(text, Path::new("tidegate.toml"), &environment)
}

fn printed(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, diagnostic| {
        writeln!(text, "{diagnostic}").unwrap();
        text
    })
}

/// Wrong files by name. Where the name ends in `+`, a database in order stands before the text.
const WRONG: &[(&str, &str)] = &[
    ("syntax", "[[database]]\nurl = \"sqlite:app.db\nname = 3\n"),
    ("syntax-duplicate-key", "[[database]]\nurl = \"sqlite:app.db\"\nurl = \"sqlite:b.db\"\n"),
    ("no-database", "[background_updates]\nsleep_enabled = false\n"),
    ("unknown-section+", "[[updates]]\nname = \"a\"\n"),
    ("unknown-key+", "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkex = \"id\"\nwhere = \"true\"\n"),
    ("unknown-key-without-suggestion+", "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\nspeed = 3\n"),
    ("unknown-limit+", "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\n[controller.limits]\nfuel_per_cal = 1\n"),
    ("section-once+", "[[background_updates]]\nsleep_enabled = false\n"),
    ("section-many+", "[controller]\nname = \"a\"\npath = \"a.wasm\"\n"),
    ("section-not-a-table", "database = [\"sqlite:app.db\"]\n"),
    ("wrong-types+", "[background_updates]\nsleep_enabled = \"no\"\nmax_attempts = \"5\"\npoll_interval_ms = 1.5\n"),
    (
        "out-of-range+",
        "[background_updates]\nmin_batch_size = 0\nmax_attempts = -1\nmax_batch_size = 3_000_000_000\npoll_interval_ms = 1\n",
    ),
    ("target-over-maximum+", "[background_updates]\nbackground_update_duration_ms = 90_000\n"),
    (
        "gentle+",
        "[background_updates]\npace = \"gentle\"\nbackground_update_duration_ms = 50\n[background_updates.gentle]\n\
         least_duty_percent = 60\nmost_duty_percent = 50\nshortest_batch_ms = 80\nlongest_sleep_ms = 1\n\
         allowed_excess_ms = -1\nduty = 5\n[signals]\nenabled = false\nprobe_interval_ms = 1\n",
    ),
    ("gentle-not-in-force+", "[background_updates.gentle]\nleast_duty_percent = 5\n"),
    ("gentle-in-an-odd-word+", "[background_updates]\npace = \"gentel\"\n"),
    ("estimator+", "[background_updates]\nestimator = \"kalman\"\n"),
    (
        "lane-wrong+",
        "[[lane]]\nname = \"main\"\nkinds = [\"sql\"]\n[[lane]]\nname = \"in dexes\"\nkinds = []\n\
         [[lane]]\nname = \"a\"\nkinds = [\"create-index\", \"creat-index\"]\n[[lane]]\nname = \"a\"\nkinds = []\n\
         [[lane]]\nname = \"b\"\nkinds = [\"create-index\"]\n[[lane]]\n",
    ),
    ("update-lane-wrong+", "[[update]]\nname = \"u\"\nkind = \"noop\"\nlane = \"a/b\"\n"),
    ("url-missing", "[[database]]\nname = \"main\"\n"),
    ("url-empty", "[[database]]\nurl = \"\"\n"),
    ("url-twice", "[[database]]\nurl = \"sqlite:app.db\"\nurl_file = \"url\"\n"),
    ("url-of-another-system", "[[database]]\nurl = \"mysql://root:hunter2@localhost/app\"\n"),
    ("url-of-parameters", "[[database]]\nurl = \"host=db dbname=app password=hunter2\"\n"),
    ("url-sqlite-without-file", "[[database]]\nurl = \"sqlite:\"\n"),
    ("url-sqlite-in-memory", "[[database]]\nurl = \"sqlite::memory:\"\n"),
    ("url-sqlite-slashes", "[[database]]\nurl = \"sqlite://app.db\"\n"),
    ("url-file-missing", "[[database]]\nurl_file = \"no/such/file\"\n"),
    ("timeouts-of-postgres-for-sqlite+", "lock_timeout_ms = 100\nstatement_timeout_ms = 100\n"),
    (
        "timeout-of-sqlite-for-postgres",
        "[[database]]\nurl = \"postgres://app:hunter2@localhost/app\"\nbusy_timeout_ms = 1\n",
    ),
    ("database-twice", "[[database]]\nurl = \"sqlite:a.db\"\n\n[[database]]\nurl = \"sqlite:b.db\"\n"),
    ("variable-not-set", "[[database]]\nurl = \"postgres://app:${PASSWORD}@${HOST}/app\"\n"),
    ("variable-malformed", "[[database]]\nurl = \"postgres://app:${SECRET@localhost/app\"\nname = \"${a b}\"\n"),
    ("secret-of-wrong-shape", "[[database]]\nurl = \"${SECRET}\"\n"),
    (
        "secret-as-word+",
        "[[update]]\nname = \"a\"\nkind = \"${SECRET}\"\n[[update]]\nname = \"b\"\nkind = \"noop\"\ndatabases = [\"${SECRET}\"]\n",
    ),
    ("secret-as-number+", "[background_updates]\nmax_attempts = \"${SECRET}\"\n"),
    ("controller-incomplete+", "[[controller]]\nsha256 = \"abc\"\nfallback = \"defualt\"\nmax_faults = 0\n"),
    (
        "controller-limits+",
        "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\n[controller.limits]\nfuel_per_call = 0\nmemory_bytes = 5_000_000_000\ndeadline_ms = \"5s\"\n",
    ),
    (
        "controller-settings+",
        "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\n[controller.settings]\nhours = [8, 18]\nzone = { name = \"UTC\" }\n",
    ),
    ("controller-limits-not-a-table+", "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\nlimits = 3\n"),
    (
        "controller-twice+",
        "[[controller]]\nname = \"a\"\npath = \"a.wasm\"\n[[controller]]\nname = \"a\"\npath = \"b.wasm\"\n",
    ),
    ("update-without-kind+", "[[update]]\nname = \"a\"\n"),
    ("update-unknown-kind+", "[[update]]\nname = \"a\"\nkind = \"backfil\"\n"),
    ("update-copy-incomplete+", "[[update]]\nname = \"a\"\nkind = \"copy\"\ninto = \"b\"\n"),
    (
        "update-copy-wrong+",
        "[[update]]\nname = \"a\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"\"\ninto_schema = \" \"\ncolumns = { id = \"id\", day = \" \" }\non_conflict = \"update\"\nset = \"a = 1\"\n",
    ),
    (
        "update-copy-of-nothing+",
        "[[update]]\nname = \"a\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"b\"\ncolumns = []\n[[update]]\nname = \"b\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"b\"\ncolumns = {}\n",
    ),
    (
        "update-copy-columns-of-wrong-type+",
        "[[update]]\nname = \"a\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"b\"\ncolumns = \"id\"\n[[update]]\nname = \"b\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"b\"\ncolumns = { id = 3 }\n",
    ),
    (
        "update-copy-variable-in-columns+",
        "[[update]]\nname = \"a\"\nkind = \"copy\"\ntable = \"t\"\nkey = \"id\"\ninto = \"b\"\ncolumns = { id = \"${NOT_SET}\" }\n",
    ),
    (
        "update-batch-incomplete+",
        "[[update]]\nname = \"a\"\nkind = \"batch\"\ntable = \"t\"\nsql = \"\"\nwhere = \"true\"\n",
    ),
    (
        "update-workers+",
        "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkey = \"id\"\nwhere = \"true\"\nworkers = 4\n[[update]]\nname = \"b\"\nkind = \"sql\"\nsql = \"SELECT 1\"\nworkers = 2\n[[update]]\nname = \"c\"\nkind = \"delete\"\ntable = \"t\"\nkey = \"id\"\nwhere = \"true\"\nworkers = 0\n",
    ),
    ("update-sql-incomplete+", "[[update]]\nname = \"a\"\nkind = \"sql\"\ntable = \"t\"\n"),
    ("update-sql-of-wrong-type+", "[[update]]\nname = \"a\"\nkind = \"sql\"\nsql = [\"DROP TABLE t\"]\n"),
    (
        "update-validate-constraint-wrong+",
        "[[update]]\nname = \"a\"\nkind = \"validate-constraint\"\ntable = \"t\"\ncheck = \"not-null\"\n",
    ),
    (
        "update-validate-and-delete-wrong+",
        "[[update]]\nname = \"a\"\nkind = \"validate-constraint-and-delete\"\ntable = \"t\"\nconstraint = \"\"\ncheck = \"notnull\"\nunique_columns = [\"a\", \"a\"]\n",
    ),
    (
        "update-validate-and-delete-incomplete+",
        "[[update]]\nname = \"a\"\nkind = \"validate-constraint-and-delete\"\nkey = \"id\"\nunique_columns = []\n",
    ),
    (
        "update-index-wrong+",
        "[[update]]\nname = \"a\"\nkind = \"create-index\"\ntable = \"t\"\nindex = \"i\"\ncolumns = { a = \"lower(a)\" }\nreplaces = \"i\"\npostgres_only = \"yes\"\n",
    ),
    ("update-backfill-incomplete+", "[[update]]\nkind = \"backfill\"\ntable = \"t\"\n"),
    ("update-delete-without-where+", "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkey = \"id\"\n"),
    (
        "update-key-of-another-kind+",
        "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkey = \"id\"\nset = \"a = 1\"\nwhere = \"true\"\nunique = true\n",
    ),
    ("update-noop-with-keys+", "[[update]]\nname = \"a\"\nkind = \"noop\"\ntable = \"t\"\n"),
    ("update-empty-texts+", "[[update]]\nname = \" \"\nkind = \"backfill\"\ntable = \"\"\nkey = []\nset = \"\"\n"),
    (
        "update-key-twice+",
        "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkey = [\"a\", \"a\"]\nwhere = \"true\"\n",
    ),
    (
        "update-key-of-wrong-type+",
        "[[update]]\nname = \"a\"\nkind = \"delete\"\ntable = \"t\"\nkey = 3\nwhere = \"true\"\n",
    ),
    ("update-index-of-nothing+", "[[update]]\nname = \"a\"\nkind = \"create-index\"\ntable = \"t\"\nindex = \"i\"\n"),
    (
        "update-index-of-both+",
        "[[update]]\nname = \"a\"\nkind = \"create-index\"\ntable = \"t\"\nindex = \"i\"\ncolumns = [\"a\"]\nexpressions = [\"lower(b)\"]\n",
    ),
    ("update-unknown-database+", "[[update]]\nname = \"a\"\nkind = \"noop\"\ndatabases = [\"mastre\", \"state\"]\n"),
    ("update-no-database+", "[[update]]\nname = \"a\"\nkind = \"noop\"\ndatabases = []\n"),
    ("update-twice+", "[[update]]\nname = \"a\"\nkind = \"noop\"\n\n[[update]]\nname = \"a\"\nkind = \"noop\"\n"),
    (
        "job-incomplete+",
        "[[job]]\ndatabase = \"mastre\"\n[[job]]\nname = \"a\"\n[[job.update]]\ndepends_on = \"b\"\n[[job.parameter]]\nrequired = 1\n",
    ),
    (
        "job-dependencies+",
        "[[job]]\nname = \"a\"\n[[job.update]]\nupdate = \"first\"\n[[job.update]]\nupdate = \"second\"\ndepends_on = \"third\"\n[[job.update]]\nupdate = \"third\"\ndepends_on = \"third\"\n[[job.update]]\nupdate = \"first\"\ndepends_on = \"second\"\n",
    ),
    (
        "job-progress+",
        "[[job]]\nname = \"a\"\nupdate = [{ update = \"b\", progress = \"after 3\" }, { update = \"c\", progress = 3 }, { update = \"d\", progress = \"[3]\" }, { update = \"e\", progress = { at = 2026-01-01 } }]\n",
    ),
    (
        "job-parameters+",
        "[[job]]\nname = \"a\"\nupdate = [{ update = \"b\", progress = { after = 3 } }]\nparameter = [{ name = \"after\", type = \"integer\" }, { name = \"job_name\", type = \"string\" }, { name = \"c\", type = \"bool\" }, { name = \"d\", type = \"number\" }, { name = \"d\", type = \"number\" }]\n",
    ),
    (
        "job-twice+",
        "[[job]]\nname = \"a\"\nupdate = [{ update = \"b\" }]\n[[job]]\nname = \"a\"\nupdate = [{ update = \"b\" }]\n",
    ),
    ("job-of-nothing+", "[[job]]\nname = \"a\"\nupdate = []\n[[job]]\nname = \"b\"\nupdate = \"c\"\n"),
    ("signals-wrong+", "[signals]\nenabled = \"yes\"\ninterval_ms = 10\ntimeout = 5\n"),
    (
        "signal-incomplete+",
        "[[signal]]\nkind = \"sql\"\n[[signal]]\nname = \"a\"\n[[signal]]\nname = \"b\"\nkind = \"promtheus\"\n[[signal]]\nname = \"c\"\nkind = \"prometheus\"\nurl = \"http://prometheus:9090\"\n",
    ),
    (
        "signal-names+",
        "[[signal]]\nname = \"replication-lag\"\nkind = \"file\"\npath = \"lag\"\n[[signal]]\nname = \"a b\"\nkind = \"file\"\npath = \"lag\"\n[[signal]]\nname = \"c\"\nkind = \"file\"\npath = \"lag\"\n[[signal]]\nname = \"c\"\nkind = \"file\"\npath = \"lag\"\ndatabases = [\"mastre\"]\n",
    ),
    (
        "signal-key-of-another-kind+",
        "[[signal]]\nname = \"a\"\nkind = \"file\"\npath = \"lag\"\nsql = \"select 1\"\npointer = \"/a\"\n[[signal]]\nname = \"b\"\nkind = \"sql\"\nsql = \" \"\ntimeout_ms = 0\n",
    ),
    (
        "secret-in-signal+",
        "[[signal]]\nname = \"a\"\nkind = \"http\"\nurl = \"ftp://me:${SECRET}@${HOST}/depth\"\npointer = \"depth\"\n[[signal]]\nname = \"b\"\nkind = \"http\"\nurl = \"${SECRET}\"\n",
    ),
    (
        "many-at-once",
        "[background_update]\nmax_attempts = 3\n\n[[database]]\nname = \"main\"\nurll = \"sqlite:app.db\"\n\n[[update]]\nname = \"a\"\nkind = \"delete\"\ntabel = \"t\"\nkey = \"id\"\nwhere = \"${NOT_SET}\"\n",
    ),
];

#[test]
fn each_mistake_is_told_with_its_place_and_what_to_do() {
    for (name, text) in WRONG {
        let (name, text) = match name.strip_suffix('+') {
            Some(name) => (name, format!("{DATABASE}{text}")),
            None => (*name, (*text).to_owned()),
        };
        let diagnostics = parse(&text).expect_err(name);
        let told = printed(&diagnostics);
        if name.starts_with("secret") {
            assert!(!told.contains("hunter2"), "{name} tells the secret: {told}");
        }
        let settings = insta::Settings::clone_current();
        let _bound = with_file(settings, &text).bind_to_scope();
        insta::assert_snapshot!(name, told);
    }
}

fn with_file(mut settings: insta::Settings, text: &str) -> insta::Settings {
    settings.set_snapshot_path("snapshots/config");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_description(text);
    settings
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let diagnostics = Config::load(Path::new("no/such/tidegate.toml"), &environment).unwrap_err();
    insta::assert_snapshot!(printed(&diagnostics), @"no/such/tidegate.toml: cannot read the configuration: No such file or directory (os error 2)");
}

#[test]
fn what_is_left_out_has_the_documented_value() {
    let text = format!("{DATABASE}[[controller]]\nname = \"a\"\npath = \"a.wasm\"\n");
    let config = parse(&text).unwrap();
    let _bound = with_file(insta::Settings::clone_current(), &text).bind_to_scope();
    insta::assert_debug_snapshot!("defaults", config);
}

#[test]
fn a_full_file_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.toml");
    fs::write(folder.path().join("url.secret"), "postgres://state:hunter2@db/state\n").unwrap();
    fs::write(&path, include_str!("config/full.toml")).unwrap();
    let config = Config::load(&path, &environment).unwrap();
    let [master, state] = &config.databases[..] else { panic!("{:?}", config.databases) };
    let file = folder.path().join("data/app.db");
    assert_eq!(master.target, Target::Sqlite { path: file, busy_timeout: Duration::from_millis(250) });
    let Target::Postgres { url, statement_timeout, .. } = &state.target else { panic!("{:?}", state.target) };
    assert_eq!(url.reveal(), "postgres://state:hunter2@db/state");
    assert_eq!(*statement_timeout, Duration::from_secs(30));
    let [depth, lag, queue, room] = &config.signals[..] else { panic!("{:?}", config.signals) };
    assert!(
        config.sampling.probe_writes == Some(true) && config.sampling.schedule.timeout == Duration::from_millis(250)
    );
    assert_eq!(depth.source, SignalSource::Sql("select count(*) from jobs".to_owned()));
    assert_eq!((depth.unit.as_str(), depth.schedule.interval), ("jobs", Duration::from_secs(60)));
    assert_eq!((&depth.databases, depth.schedule.timeout), (&Databases::All, Duration::from_millis(250)));
    assert_eq!((&lag.databases, lag.schedule), (&Databases::Named(vec!["state".to_owned()]), config.sampling.schedule));
    assert!(matches!(&lag.source, SignalSource::Http { part: Part::Prometheus, token: Some(_), .. }));
    let pointer = Part::Pointer("/queue/depth".to_owned());
    assert!(matches!(&queue.source, SignalSource::Http { part, token: None, .. } if *part == pointer));
    assert_eq!(room.source, SignalSource::File(folder.path().join("signals/room")));
    assert_eq!(config.background_updates.target_duration, Duration::from_millis(200));
    let controller = config.controller_of("state").unwrap();
    assert_eq!(controller.path, folder.path().join("controllers/office.wasm"));
    assert_eq!((controller.fallback, controller.sha256.unwrap()[0]), (Fallback::Hold, 0xe3));
    assert_eq!(controller.settings.0["token"], "hunter2");
    assert_eq!(controller.settings.0["from"], "8");
    assert_eq!(controller.limits.fuel_per_call, 500_000);
    assert!(config.controller_of("master").is_none());
    assert!(config.warnings.is_empty(), "{}", printed(&config.warnings));
    assert!(!format!("{config:?}").contains("hunter2"), "Debug shows a secret");
}

#[test]
fn each_kind_of_update_is_understood() {
    let folder = PathBuf::from("tests");
    let text = include_str!("config/full.toml").replace("url_file = \"url.secret\"", "url = \"postgres://${HOST}\"");
    let config = Config::parse(&text, &folder.join("tidegate.toml"), &environment).unwrap();
    let of_master: Vec<_> = config.updates_of("master").map(|update| update.name.as_str()).collect();
    let later = ["archive", "archive_all", "split", "valid", "valid_or_gone", "tidy"];
    assert_eq!(of_master, [&["fill_search_body", "index_search_body", "drop_spam", "old_one"], &later[..]].concat());
    let messages = TableName { schema: None, name: "messages".to_owned() };
    let update = |name: &str| &config.updates.iter().find(|update| update.name == name).unwrap().kind;
    assert_eq!(
        *update("fill_search_body"),
        UpdateKind::Backfill(BackfillDefinition {
            table: messages.clone(),
            key: vec!["id".to_owned()],
            set: "search_body = lower(body), touched = touched + 1".to_owned(),
            filter: None,
        })
    );
    assert_eq!(
        *update("drop_spam"),
        UpdateKind::Delete(DeleteDefinition {
            table: TableName { schema: Some("chat".to_owned()), name: "messages".to_owned() },
            key: vec!["room".to_owned(), "id".to_owned()],
            filter: "body like '$$ ${ %'".to_owned(),
        })
    );
    assert_eq!(
        *update("index_search_body"),
        UpdateKind::CreateIndex(CreateIndexDefinition {
            table: messages.clone(),
            index: "messages_search_body".to_owned(),
            parts: IndexParts::Expressions(vec!["lower(search_body)".to_owned(), "id".to_owned()]),
            unique: false,
            filter: Some("search_body is not null".to_owned()),
            replaces: Some("messages_body".to_owned()),
            postgres_only: true,
        })
    );
    assert_eq!(*update("old_one"), UpdateKind::Noop);
    let column = |target: &str, source| CopyColumn { target: target.to_owned(), source };
    let archive = CopyDefinition {
        table: messages.clone(),
        key: vec!["id".to_owned()],
        into: TableName { schema: Some("old".to_owned()), name: "archive".to_owned() },
        columns: vec![
            column("day", CopySource::Expression("ts / 86400".to_owned())),
            column("id", CopySource::Expression("id".to_owned())),
        ],
        filter: Some("ts < 1700000000".to_owned()),
        on_conflict: OnConflict::Ignore,
    };
    assert_eq!(*update("archive"), UpdateKind::Copy(archive.clone()));
    let all = CopyDefinition {
        into: TableName { schema: None, name: "archive".to_owned() },
        columns: vec![column("id", CopySource::SameName), column("body", CopySource::SameName)],
        filter: None,
        on_conflict: OnConflict::Error,
        ..archive
    };
    assert_eq!(*update("archive_all"), UpdateKind::Copy(all));
    let sql = "UPDATE messages SET day = ts / 86400 WHERE :range;\nDELETE FROM drafts WHERE :range\n".to_owned();
    let batch = BatchDefinition { table: messages.clone(), key: vec!["room".to_owned(), "id".to_owned()], sql };
    assert_eq!(*update("split"), UpdateKind::Batch(batch));
    let (table, constraint) = (messages, "body_there".to_owned());
    let valid = ValidateConstraintDefinition { table: table.clone(), constraint: constraint.clone() };
    assert_eq!(*update("valid"), UpdateKind::ValidateConstraint(valid));
    let check = Some(ConstraintKind::NotNull);
    let unique_columns = vec!["id".to_owned()];
    let valid = ValidateAndDeleteDefinition { table, constraint, check, unique_columns };
    assert_eq!(*update("valid_or_gone"), UpdateKind::ValidateAndDelete(valid));
    assert_eq!(*update("tidy"), UpdateKind::Script(ScriptDefinition { sql: "DROP TABLE drafts".to_owned() }));
}

#[test]
fn a_definition_knows_its_lines() {
    let config = parse(&format!("{DATABASE}\n[[update]]\nname = \"a\"\nkind = \"noop\"\n")).unwrap();
    let places = &config.updates[0].places;
    assert_eq!((places.header.line, places.of("name").line, places.of("table").line), (4, 5, 4));
    assert_eq!(config.updates[0].databases, Databases::All);
    let diagnostic = config.diagnostic(places.of("kind"), "message".to_owned(), None);
    assert_eq!(diagnostic.to_string(), "tidegate.toml:6:1: message");
}

#[test]
fn updates_of_one_name_may_be_for_different_databases() {
    let databases =
        "[[database]]\nname = \"a\"\nurl = \"sqlite:a.db\"\n[[database]]\nname = \"b\"\nurl = \"sqlite:b.db\"\n";
    let update = |database| format!("[[update]]\nname = \"same\"\nkind = \"noop\"\ndatabases = [\"{database}\"]\n");
    let config = parse(&format!("{databases}{}{}", update("a"), update("b"))).unwrap();
    assert_eq!(config.updates_of("b").count(), 1);
}

#[test]
fn a_job_of_an_update_that_is_not_defined_is_warned_of() {
    let job = "[[job]]\nname = \"a\"\nupdate = [{ update = \"b\" }, { update = \"c\" }]\n";
    let update = "[[update]]\nname = \"b\"\nkind = \"noop\"\n";
    let config = parse(&format!("{DATABASE}{update}{job}")).unwrap();
    insta::assert_snapshot!(printed(&config.warnings), @r#"
    tidegate.toml:6:1: job "a" cannot start: update "c" is not defined for database "master"
      hint: define it in [[update]], or name the job's database with `database`
    "#);
}

#[test]
fn a_controller_that_is_not_used_is_warned_of() {
    let controller = |name| format!("[[controller]]\nname = \"{name}\"\npath = \"{name}.wasm\"\n");
    let config = parse(&format!("{DATABASE}{}{}", controller("first"), controller("second"))).unwrap();
    insta::assert_snapshot!(printed(&config.warnings), @r#"
    tidegate.toml:6:1: controller "second" is ignored for database "master": "first" comes first
      hint: say with `databases` which controller is for which database
    "#);
}

#[test]
fn a_controller_paces_the_databases_that_it_names() {
    let databases =
        "[[database]]\nname = \"a\"\nurl = \"sqlite:a.db\"\n[[database]]\nname = \"b\"\nurl = \"sqlite:b.db\"\n";
    let controller = |name, more| format!("[[controller]]\nname = \"{name}\"\npath = \"{name}.wasm\"\n{more}");
    let paced_by = |more| {
        let config = parse(&format!("{databases}{}{}", controller("one", more), controller("two", ""))).unwrap();
        ["a", "b"].map(|database| config.controller_of(database).unwrap().name.clone())
    };
    assert_eq!(paced_by(""), ["one", "one"]);
    assert_eq!(paced_by("databases = [\"b\"]\n"), ["two", "one"]);
}

#[test]
fn settings_are_read_with_their_types_and_go_to_the_updates() {
    let text = "[settings]\ntext = \"${HOST}\"\nwhole = 0x10\nreal = 1.5\nflag = true\nlist = [\"a\", [1, false]]\n\
                [[update]]\nname = \"a\"\nkind = \"sql\"\nsql = \"SELECT :setting_text, :setting_whole, :setting_real, \
                :setting_flag, :setting_list\"\n";
    let config = parse(&format!("{DATABASE}{text}")).unwrap();
    let expected: Settings = [
        ("text", Setting::Text("db.example.org".to_owned())),
        ("whole", Setting::Integer(16)),
        ("real", Setting::Real(1.5)),
        ("flag", Setting::Boolean(true)),
        ("list", Setting::Text("[\"a\",[1,false]]".to_owned())),
    ]
    .into_iter()
    .map(|(name, setting)| (name.to_owned(), setting))
    .collect();
    assert_eq!(config.updates[0].settings, expected);
    assert!(config.warnings.is_empty(), "{}", printed(&config.warnings));
    assert!(!format!("{config:?}").contains("db.example.org"), "Debug shows what came from the environment");
}

#[test]
fn settings_that_no_statement_can_be_given_are_refused_and_unused_ones_warned_of() {
    let mistakes = "[settings]\nday = 2026-01-01\npair = { a = 1 }\nlate = [2026-01-01]\nhuge = 9223372036854775808\n\
                    far = inf\n\"a-b\" = 1\n_a = 1\n";
    insta::assert_snapshot!(printed(&parse(&format!("{DATABASE}{mistakes}")).unwrap_err()), @r#"
    tidegate.toml:4:7: "day" in [settings] is nothing that a statement can be given
      hint: write a text, a number, true or false, or a list of these, which statements get as JSON
    tidegate.toml:5:8: "pair" in [settings] is nothing that a statement can be given
      hint: write a text, a number, true or false, or a list of these, which statements get as JSON
    tidegate.toml:6:8: "late" in [settings] is nothing that a statement can be given
      hint: write a text, a number, true or false, or a list of these, which statements get as JSON
    tidegate.toml:7:8: "huge" in [settings] is nothing that a statement can be given
      hint: write a text, a number, true or false, or a list of these, which statements get as JSON
    tidegate.toml:8:7: "far" in [settings] is nothing that a statement can be given
      hint: write a text, a number, true or false, or a list of these, which statements get as JSON
    tidegate.toml:9:1: "a-b" in [settings] is no name of a setting
      hint: write letters, digits and underscores, and begin with a letter: statements say :setting_NAME
    tidegate.toml:10:1: "_a" in [settings] is no name of a setting
      hint: write letters, digits and underscores, and begin with a letter: statements say :setting_NAME
    "#);
    insta::assert_snapshot!(printed(&parse(&format!("settings = 1\n{DATABASE}")).unwrap_err()), @r#"
    tidegate.toml:1:12: [settings] must be a table
      hint: write [settings] on a line of its own, and its keys below
    "#);
    let unused = "[settings]\nserver = \"a\"\nother = \"b\"\n[[update]]\nname = \"a\"\nkind = \"sql\"\n\
                  sql = \"SELECT :setting_other, ':setting_server'\"\n";
    insta::assert_snapshot!(printed(&parse(&format!("{DATABASE}{unused}")).unwrap().warnings), @r#"
    tidegate.toml:4:1: no update uses the setting "server"
      hint: write :setting_server in a statement of an update, or leave it out
    "#);
}

#[test]
fn an_update_is_refused_with_a_reason() {
    let update = |rest: &str| format!("{DATABASE}[[update]]\nname = \"a\"\nkind = \"refuse\"\n{rest}");
    let config = parse(&update("reason = \"it needs a key\"\n")).unwrap();
    assert_eq!(config.updates[0].kind, UpdateKind::Refuse("it needs a key".to_owned()));
    insta::assert_snapshot!(printed(&parse(&update("")).unwrap_err()), @r#"tidegate.toml:3:1: "reason" is missing in [[update]] "a": kind "refuse" needs it"#);
}
