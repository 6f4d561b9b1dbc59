//! Signals of one's own, and samplers that hang.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidegate::signal::{
    Address, Definition, File, Http, Part, Sample, Sampler, Sampling, Schedule, Scope, SignalReader, Signals, Task,
};
use tidegate_database::{Options, SamplerOptions, samplers, sql_sampler};

use super::{LIMIT, age, error, fails, often, reads, value};
use crate::support::api::client;
use crate::support::on_both;
use crate::support::place::{Place, holder};
use crate::support::run::make_items;

fn definition(name: &str) -> Definition {
    Definition { name: name.to_owned(), unit: String::new(), source: "a test".to_owned() }
}

fn query(place: &Place, name: &str, sql: &str) -> Task {
    often(sql_sampler(&place.url, &Options::new(holder(1)), definition(name), sql, LIMIT).unwrap())
}

fn sampling(tasks: Vec<Task>) -> Sampling {
    let sampling = Sampling::new(Signals::default());
    sampling.replace(tasks);
    sampling
}

on_both! {
    async fn a_query_is_a_signal_and_can_do_no_harm(place: Place) {
        make_items(place, 10).await;
        let numbers = place.either("select 1.5 from items", "select 1.5::numeric from items");
        let slow = place.either(
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n",
            "select count(*) from pg_sleep(60)",
        );
        let sampling = sampling(vec![
            query(place, "count", "select count(*) from items -- all of them"),
            query(place, "real", &format!("{numbers} limit 1;")),
            query(place, "many", numbers),
            query(place, "none", "select touched from items where id < 0"),
            query(place, "null", "select max(touched) from items where id < 0"),
            query(place, "words", "select 'soon'"),
            query(place, "missing", "select count(*) from missing"),
            query(place, "begin", "begin"),
            query(place, "delete", "delete from items returning id"),
            query(place, "slow", slow),
        ]);
        reads(&sampling, "count", |count| count == 10.0).await;
        reads(&sampling, "real", |real| real == 1.5).await;
        for (name, words) in [
            ("many", "more than one row"),
            ("none", "no row"),
            ("null", "NULL"),
            ("words", place.either("a text, not a number", "invalid input syntax")),
            ("missing", "missing"),
            ("begin", place.either("no such table", "syntax error")),
            ("delete", "syntax error"),
            ("slow", place.either("longer than 300 ms", "statement timeout")),
        ] {
            fails(&sampling, name, words).await;
            assert_eq!(value(&sampling, name), None, "{name}");
        }
        place.run("insert into items (id) values (1000)").await;
        reads(&sampling, "count", |count| count == 11.0).await;
    }

    /// A server that takes connections and never answers, a stuck sampler, and beside them one that works.
    async fn who_hangs_only_ages(place: Place) {
        make_items(place, 10).await;
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://app@{}/app", silent.local_addr().unwrap());
        let mut tasks = vec![query(place, "count", "select count(*) from items")];
        let options = SamplerOptions { timeout: LIMIT, ..SamplerOptions::default() };
        let hanging = samplers(&url, &Options::new(holder(1)), &options).unwrap();
        tasks.extend(hanging.into_iter().map(|sampler| Task { scope: Scope::database("hangs"), ..often(sampler) }));
        tasks.push(often(Box::new(Stuck(0))));
        let sampling = sampling(tasks);
        reads(&sampling, "stuck", |value| value == 2.0).await;
        for name in ["active-sessions", "probe-latency", "replication-lag", "stuck"] {
            fails(&sampling, name, "no answer within 300 ms").await;
        }
        // For as long as a connection is tried, and then for as long as the next.
        fails(&sampling, "active-sessions", "cannot connect to 127.0.0.1:").await;
        assert!(age(&sampling, "stuck").unwrap() > Duration::from_secs(1));
        assert_eq!(sampling.signals().read("hangs", "probe-latency"), None);
        place.run("insert into items (id) values (1000)").await;
        reads(&sampling, "count", |count| count == 11.0).await;
        assert_eq!(error(&sampling, "count"), None);
        // Nobody waits for who hangs when it is over, either.
        let began = Instant::now();
        drop(sampling);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

/// Answers twice, and then never.
struct Stuck(u32);

#[async_trait]
impl Sampler for Stuck {
    fn definitions(&self) -> Vec<Definition> {
        vec![definition("stuck")]
    }

    async fn sample(&mut self) -> Vec<Sample> {
        self.0 += 1;
        if self.0 > 2 {
            std::future::pending::<()>().await;
        }
        vec![Sample::new("stuck", Ok::<_, String>(f64::from(self.0)))]
    }
}

/// A server that answers each request with the next of these, and after the last takes connections and says nothing.
fn server(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut taken = Vec::new();
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept() else { return };
            if let Some(answer) = answers.get(number) {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request);
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length:";
                let _ = stream.write_all(format!("{head} {}\r\n\r\n{answer}", answer.len()).as_bytes());
            } else {
                taken.push(stream);
            }
        }
    });
    format!("http://{address}/")
}

fn http(name: &str, address: Address, part: Part) -> Task {
    often(Box::new(Http::new(definition(name), client(), (address, None), part, LIMIT)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_a_number_and_one_that_hangs_lets_it_age() {
    let whole = server(&["12.5\n"]);
    let pointed = server(&[r#"{"queue": {"depth": 7}}"#]);
    let vector =
        r#"{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "3"]}]}}"#;
    let answers: &'static [&'static str] = Box::leak(Box::new([vector]));
    let prometheus = server(answers);
    let sampling = sampling(vec![
        http("whole", Address::parse(&whole).unwrap(), Part::Whole),
        http("pointed", Address::parse(&pointed).unwrap(), Part::Pointer("/queue/depth".to_owned())),
        http("prometheus", Address::prometheus(&prometheus, "max(lag)").unwrap(), Part::Prometheus),
        http("nobody", Address::parse("http://127.0.0.1:1/").unwrap(), Part::Whole),
    ]);
    for (name, expected) in [("whole", 12.5), ("pointed", 7.0), ("prometheus", 3.0)] {
        reads(&sampling, name, |value| value == expected).await;
        // The server's own silence or ours, whichever is noticed first.
        crate::support::until("it hangs", async || error(&sampling, name).is_some()).await;
        crate::support::until("it ages", async || age(&sampling, name).unwrap() > 4 * LIMIT).await;
        assert_eq!(value(&sampling, name), Some(expected));
    }
    fails(&sampling, "nobody", "onnection refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("depth");
    let sampling = sampling(vec![often(Box::new(File::new(definition("depth"), path.clone())))]);
    fails(&sampling, "depth", "cannot be read").await;
    std::fs::write(&path, "41\n").unwrap();
    reads(&sampling, "depth", |depth| depth == 41.0).await;
    std::fs::write(&path, "many\n").unwrap();
    fails(&sampling, "depth", "a text of 4 characters is not a number").await;
    assert_eq!(value(&sampling, "depth"), Some(41.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sampled_can_be_replaced_and_what_stays_keeps_its_age() {
    let often = |name: &'static str| Task {
        scope: Scope::Host,
        sampler: Box::new(File::new(definition(name), "/proc/sys/kernel/pid_max".into())),
        schedule: Schedule { interval: Duration::from_secs(3_600), timeout: LIMIT },
    };
    let sampling = sampling(vec![often("stays"), often("goes")]);
    reads(&sampling, "stays", |_| true).await;
    reads(&sampling, "goes", |_| true).await;
    sampling.replace(vec![often("stays")]);
    assert_eq!(value(&sampling, "goes"), None);
    assert!(value(&sampling, "stays").is_some());
}
