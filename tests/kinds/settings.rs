//! Settings in statements: bound, whatever they hold, and a part of the definition.

use tidegate::update::sql::System;
use tidegate::update::{
    Batch, BatchDefinition, Handler, Next, Script, ScriptDefinition, Setting, Settings, UpdateError,
};

use super::subject::{Driven, Subject, names, table};

const TABLE: &str = "CREATE TABLE t (id integer not null primary key, body text);
    INSERT INTO t (id) VALUES (1), (2), (5), (7), (11);";
/// What would do harm where it became SQL, or a pattern, or another placeholder.
const TEXT: &str = "O'Neil \"x\" $1 ?1 :range :setting_flag \\ ; DROP TABLE t; -- \u{1f980}";

fn settings(text: &str) -> Settings {
    let list = serde_json::json!(["a", 'b', TEXT]).to_string();
    let settings = [
        ("text", Setting::Text(text.to_owned())),
        ("whole", Setting::Integer(i64::MIN)),
        ("real", Setting::Real(-0.1)),
        ("flag", Setting::Boolean(true)),
        ("off", Setting::Boolean(false)),
        ("list", Setting::Text(list)),
    ];
    settings.into_iter().map(|(name, setting)| (name.to_owned(), setting)).collect()
}

fn batch(subject: &Subject, sql: &str, settings: Settings) -> Batch {
    let definition = BatchDefinition { table: table("t"), key: names(&["id"]), sql: sql.to_owned() };
    Batch::new(definition, subject.system).with_settings(settings)
}

fn script(subject: &Subject, sql: &str) -> Script {
    Script::new(ScriptDefinition { sql: sql.to_owned() }, subject.system).with_settings(settings(TEXT))
}

/// Every setting in a log, with the types that they have there.
fn log(subject: &Subject) -> String {
    let kind = match subject.system {
        System::Sqlite => "typeof",
        System::Postgres => "pg_typeof",
    };
    let elements = match subject.system {
        System::Sqlite => "json_each(:setting_list)",
        System::Postgres => "json_array_elements_text(:setting_list ::json) AS e (value)",
    };
    let kinds = ["text", "whole", "real", "flag"].map(|name| format!("CAST({kind}(:setting_{name}) AS text)"));
    format!(
        "INSERT INTO log (text, kinds, element) \
         SELECT :setting_text, {} || CASE WHEN :setting_flag AND NOT :setting_off THEN ' right' END, value \
         FROM {elements} WHERE ':setting_text' <> :setting_text -- :setting_text\n",
        kinds.join(" || ' ' || ")
    )
}

async fn assert_logged(subject: &Subject, times: usize) {
    let kinds = match subject.system {
        System::Sqlite => "text integer real integer right",
        System::Postgres => "text bigint double precision boolean right",
    };
    let rows = subject.rows("SELECT text, kinds, element FROM log ORDER BY element, text").await;
    let expected: Vec<String> = [TEXT, "a", "b"]
        .iter()
        .flat_map(|element| std::iter::repeat_n(format!("{TEXT}|{kinds}|{element}"), times))
        .collect();
    assert_eq!(rows, expected, "on {}", subject.system);
    assert_eq!(subject.value("SELECT count(*) FROM t").await, "5");
}

#[tokio::test]
async fn a_setting_is_a_value_of_its_type_in_every_statement() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        subject.script("CREATE TABLE log (text text, kinds text, element text)").await;
        let sql = format!("{}; UPDATE t SET body = :setting_text WHERE :range AND id > :setting_whole", log(&subject));
        let batch = batch(&subject, &sql, settings(TEXT));
        assert_eq!(subject.problems(&batch).await, "");
        subject.drive(&batch, 2).await.unwrap();
        assert_logged(&subject, 3).await;
        let count = format!("SELECT count(*) FROM t WHERE body = '{}'", TEXT.replace('\'', "''"));
        assert_eq!(subject.value(&count).await, "5");
    }
}

#[tokio::test]
async fn a_script_uses_settings_beside_statements_that_take_no_parameters() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let own = match subject.system {
            System::Sqlite => "CREATE TRIGGER g AFTER INSERT ON log BEGIN UPDATE log SET n = 1; END",
            System::Postgres => "LOCK TABLE t; DO $$ BEGIN PERFORM ':setting_nothing'; END $$",
        };
        let sql = format!(
            "CREATE TABLE log (text text, kinds text, element text, n integer); {own}; {}; DROP TABLE IF EXISTS other",
            log(&subject)
        );
        let script = script(&subject, &sql);
        assert_eq!(subject.problems(&script).await, "");
        subject.drive(&script, 1).await.unwrap();
        assert_logged(&subject, 1).await;
    }
}

#[tokio::test]
async fn a_setting_that_is_not_there_is_named_and_nothing_is_done() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let sql = "UPDATE t SET body = :setting_txt WHERE :range";
        let hint = "give it a value below [settings], where there are flag, list, off, real, text, whole";
        let expected = format!("sql: :setting_txt is no setting\n  hint: {hint}\n");
        let in_batches = batch(&subject, sql, settings(TEXT));
        assert_eq!(subject.problems(&in_batches).await, expected);
        let once = script(&subject, "DELETE FROM t; DELETE FROM t WHERE body = :setting_txt");
        assert_eq!(subject.problems(&once).await, expected);
        for handler in [&in_batches as &dyn Handler, &once] {
            let error = subject.drive(handler, 2).await.unwrap_err().to_string();
            assert_eq!(error, format!(":setting_txt is no setting ({hint})"));
            subject.database.cancel(&[super::subject::UPDATE.to_owned()]).await.unwrap();
        }
        let none = batch(&subject, sql, Settings::default());
        let problem =
            "sql: :setting_txt is no setting\n  hint: give it a value below [settings], of which there are none\n";
        assert_eq!(subject.problems(&none).await, problem);
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE body IS NULL").await, "5");
        // A setting alone does not say which rows a batch has.
        let everywhere = batch(&subject, "UPDATE t SET body = :setting_text", settings(TEXT));
        assert!(subject.problems(&everywhere).await.contains("no statement says which rows the batch has"));
    }
}

#[tokio::test]
async fn another_value_of_a_setting_in_use_is_another_definition() {
    for subject in Subject::each().await {
        subject.script(TABLE).await;
        let sql = "UPDATE t SET body = :setting_text WHERE :range";
        subject.enqueue().await;
        let first = batch(&subject, sql, settings("before"));
        let next = subject.batch(&first, 2, &mut Driven::default()).await.unwrap();
        assert!(matches!(next, Some(Next::Continue(_))));
        let error =
            subject.batch(&batch(&subject, sql, settings("after")), 2, &mut Driven::default()).await.unwrap_err();
        let changes = "settings was \"{\"text\":\"before\"}\" and is \"{\"text\":\"after\"}\"".to_owned();
        assert_eq!(error, UpdateError::Redefined { changes });
        // Others may change as they like.
        let others = settings("before").names().filter(|name| *name == "text").map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(others, ["text"]);
        let alone: Settings = [("text".to_owned(), Setting::Text("before".to_owned()))].into_iter().collect();
        subject.batch(&batch(&subject, sql, alone), 9, &mut Driven::default()).await.unwrap();
        assert_eq!(subject.value("SELECT count(*) FROM t WHERE body = 'before'").await, "5");
    }
}

#[tokio::test]
async fn letters_of_any_script_are_small_letters_on_sqlite_as_well() {
    let subject = Subject::sqlite().await;
    subject.script("CREATE TABLE t (id integer primary key not null, body, small, large, plain, half)").await;
    subject
        .script(
            "INSERT INTO t (id, body) VALUES (1, '\u{c5}SA \u{3a3}\u{39f}\u{3a3}'), (2, '\u{ff21}\u{fb01} \u{212b}'), \
             (3, NULL), (4, 5), (5, x'C5')",
        )
        .await;
    let sql = "UPDATE t SET small = unicode_lower(body), large = unicode_upper(body), \
               plain = unicode_normalize(body, 'nfkc'), half = unicode_normalize(body, 'NFD') WHERE :range";
    let batch = batch(&subject, sql, Settings::default());
    assert_eq!(subject.problems(&batch).await, "");
    subject.drive(&batch, 2).await.unwrap();
    assert_eq!(
        subject.rows("SELECT id, small, large, plain, half = body, typeof(small) FROM t ORDER BY id").await,
        [
            "1|\u{e5}sa \u{3c3}\u{3bf}\u{3c2}|\u{c5}SA \u{3a3}\u{39f}\u{3a3}|\u{c5}SA \u{3a3}\u{39f}\u{3a3}|0|text",
            "2|\u{ff41}\u{fb01} \u{e5}|\u{ff21}FI \u{212b}|Afi \u{c5}|0|text",
            "3|||||null",
            "4|5|5|5|1|integer",
            "5|[c5]|[c5]|[c5]|1|blob",
        ]
    );
    let error = subject.attempt("SELECT unicode_normalize('x', 'NFX')").await.unwrap_err();
    assert!(error.contains("unicode_normalize knows the forms NFC, NFD, NFKC and NFKD"), "{error}");
    // The application, which has no such function, must not meet it.
    let error = subject.attempt("CREATE INDEX small ON t (unicode_lower(body))").await.unwrap_err();
    assert!(error.contains("unicode_lower"), "{error}");
}
