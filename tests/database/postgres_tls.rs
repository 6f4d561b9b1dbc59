//! PostgreSQL over TLS, in libpq's modes, with a certificate made for `localhost`.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidegate::update::ErrorClass;
use tidegate::update::sql::{SqlError, Value};
use tidegate_database::{Options, open};

use crate::support::place::holder;
use crate::support::postgres::{Server, Settings};

/// An authority's certificate, and the certificate and key of a server that it vouches for.
fn certificates() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (authority.pem(), server.pem(), key.serialize_pem())
}

/// Whether the connection is encrypted, where one can be made; a statement on it is cancelled on the way, which takes
/// another connection.
async fn encrypted(url: &str) -> Result<bool, SqlError> {
    let database = open(url, Options::new(holder(1))).unwrap();
    let mut session = database.session().await?;
    let interrupter = session.interrupter();
    let other = open(url, Options::new(holder(2))).unwrap();
    let mut watching = other.session().await?;
    let interrupt = async {
        let mut asleep = Vec::new();
        while asleep.is_empty() {
            let sleeps = "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
            asleep = watching.query(sleeps, &[]).await.unwrap();
        }
        interrupter.interrupt().await;
    };
    let (slept, ()) = tokio::join!(session.query("select pg_sleep(20)", &[]), interrupt);
    assert_eq!(slept.unwrap_err().class, ErrorClass::Interrupted);
    let rows = session.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await?;
    Ok(rows == [[Value::Integer(1)]])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_verifies_what_it_promises() {
    let (authority, certificate, key) = certificates();
    let (other_authority, _, _) = certificates();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.display().to_string().replace('/', "%2F")
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &other_authority));
    let server = Server::start(&Settings {
        parameters: vec![("ssl", "on".to_owned())],
        files: vec![("server.crt", certificate), ("server.key", key)],
        ..Settings::default()
    });
    let named = server.database().await.url.replace("127.0.0.1", "localhost");
    let numbered = named.replace("localhost", "127.0.0.1");

    let works = [
        (format!("{named}?sslmode=disable"), false),
        (named.clone(), true),
        (format!("{named}?sslmode=prefer"), true),
        (format!("{numbered}?sslmode=require"), true),
        (format!("{numbered}?sslmode=require&sslrootcert={right}"), true),
        (format!("{numbered}?sslrootcert={right}&sslmode=verify-ca"), true),
        (format!("{named}?connect_timeout=5&sslmode=verify-full&sslrootcert={right}"), true),
    ];
    for (url, expected) in works {
        assert_eq!(encrypted(&url).await, Ok(expected), "{url}");
    }
    let fails = [
        format!("{numbered}?sslmode=verify-full&sslrootcert={right}"),
        format!("{named}?sslmode=verify-full&sslrootcert={wrong}"),
        format!("{named}?sslmode=verify-ca&sslrootcert={wrong}"),
        format!("{named}?sslmode=require&sslrootcert={wrong}"),
    ];
    for url in fails {
        let error = encrypted(&url).await.expect_err(&url);
        assert_eq!(error.class, ErrorClass::Connection, "{url}");
        assert!(error.message.contains("invalid peer certificate"), "{url}: {error}");
    }
}
