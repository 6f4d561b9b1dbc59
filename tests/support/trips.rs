//! A way to a PostgreSQL server on which trips are counted: how often somebody who works there waits for its answer.
//!
//! Answers are held back for a moment, so that all that is sent without waiting for them has been sent by then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// How long an answer is held back.
const HELD_BACK: Duration = Duration::from_millis(10);

/// What was sent for one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How often its answers were waited for.
    pub trips: u32,
    /// The statements, those that begin and end it among them.
    pub statements: u32,
}

/// The way to a server.
pub struct Way {
    /// What leads by it to the database.
    pub url: String,
    counted: Arc<Mutex<Vec<Counted>>>,
}

impl Way {
    /// To the database at `url`. Counted is what sessions do whose name has `whose` in it, or whose transactions do.
    pub async fn to(url: &str, whose: &'static str) -> Self {
        let (_, place) = url.split_once('@').expect("a user before the server's name");
        let (server, _) = place.split_once('/').expect("a database behind it");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Whether the server speaks TLS is not asked: the answer is no message.
        let way = format!("{}?sslmode=disable", url.replacen(server, &listener.local_addr().unwrap().to_string(), 1));
        let counted = Arc::<Mutex<Vec<Counted>>>::default();
        let (server, found) = (server.to_owned(), Arc::clone(&counted));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(lead(client, server, whose, Arc::clone(&found)));
            }
        });
        Self { url: way, counted }
    }

    /// What was counted of each transaction that was committed, in order.
    pub fn counted(&self) -> Vec<Counted> {
        self.counted.lock().unwrap().clone()
    }
}

async fn lead(client: TcpStream, server: TcpStream, whose: &'static str, counted: Arc<Mutex<Vec<Counted>>>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let waiting = Arc::new(Mutex::new(0));
    let back = tokio::spawn(answers(from_server, to_client, Arc::clone(&waiting)));
    requests(from_client, to_server, &waiting, whose, &counted).await;
    back.abort();
}

/// Passes answers on, each a moment later.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, waiting: Arc<Mutex<u32>>) {
    let mut messages = Messages::default();
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        messages.0.extend_from_slice(&buffer[..length]);
        let ready = messages.by_ref().filter(|(kind, _)| *kind == b'Z').count() as u32;
        tokio::time::sleep(HELD_BACK).await;
        {
            let mut waiting = waiting.lock().unwrap();
            *waiting = waiting.saturating_sub(ready);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Passes requests on and counts them.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    waiting: &Mutex<u32>,
    whose: &str,
    counted: &Mutex<Vec<Counted>>,
) {
    let mut messages = Messages::default();
    let (mut is_counted, mut begun, mut open) = (false, false, Counted::default());
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        if begun {
            messages.0.extend_from_slice(bytes);
        } else {
            // The first message of a session has no kind, and names who it is.
            begun = true;
            is_counted = holds(bytes, whose);
        }
        for (kind, body) in messages.by_ref().filter(|(kind, _)| matches!(kind, b'Q' | b'S')) {
            let mut waiting = waiting.lock().unwrap();
            open.trips += u32::from(*waiting == 0);
            open.statements += 1;
            *waiting += 1;
            is_counted |= body.starts_with(b"begin") && holds(&body, whose);
            if kind == b'Q' && body.starts_with(b"commit") {
                let done = std::mem::take(&mut open);
                if is_counted {
                    counted.lock().unwrap().push(done);
                }
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

/// The messages in what has come until now: a kind, a length, and what they say.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Iterator for Messages {
    type Item = (u8, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_be_bytes(self.0.get(1..5)?.try_into().ok()?) as usize;
        if self.0.len() <= length {
            return None;
        }
        let rest = self.0.split_off(length + 1);
        let message = std::mem::replace(&mut self.0, rest);
        Some((message[0], message[5..].to_vec()))
    }
}
