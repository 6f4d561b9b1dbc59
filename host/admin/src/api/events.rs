//! Every event of the scheduler, as server-sent events.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::caller::Viewer;
use super::extract::{Query, site};
use super::problem::{Problem, Searching};
use super::view::HostEvent;
use crate::State;
use tidegate::scheduler::Control;
use tidegate::scheduler::database::unix_ms;
use tidegate::scheduler::event::{Event, EventKind};

/// How often a comment is sent where nothing happens, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often it is looked whether a client still may look, where nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// Which events are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Those of this database alone.
    #[param(example = "master")]
    database: Option<String>,
}

/// What is sent in place of events that were lost.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(example = json!({"kind": "lost", "lost": 17}))]
struct Lost {
    /// "lost".
    kind: &'static str,
    /// How many events, over all databases; `null` where the host restarted meanwhile.
    lost: Option<u64>,
}

/// What a message's data can be.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Message {
    /// Something happened.
    Event(Box<HostEvent>),
    /// Something happened, and is not told any more.
    Lost(Lost),
}

/// Everything that happens, from now on
///
/// A stream of server-sent events, each with `id` and, as `data`, one JSON object whose `kind` tells what happened. A
/// comment comes every 15 s while nothing does. A client that lags more than 65,536 events behind loses the oldest, and is
/// told how many by an object of the kind `lost`, which has no `id`; so is one that comes back with `Last-Event-ID` and
/// missed some, for nothing is repeated. The stream ends when the host stops, and when a reload takes the token back.
#[utoipa::path(
    get,
    path = "/events",
    tag = "host",
    params(
        Filter,
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that the client has.",
            example = "1700000000000-17")
    ),
    responses(
        (status = 200, description = "The stream.", content((Message = "text/event-stream"))),
        Searching
    )
)]
pub(super) async fn events(
    _: Viewer,
    Query(Filter { database }): Query<Filter>,
    extract::State(state): extract::State<State>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    if let Some(name) = &database {
        site(&state, name)?;
    }
    let (events, last) = state.events().subscribe_after();
    let seen = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default().to_owned());
    let feed = Feed {
        started_at_ms: unix_ms(state.started_at()),
        running: state
            .sites()
            .iter()
            .map(|site| site.name.clone())
            .filter(|name| wanted(database.as_ref(), name))
            .collect(),
        control: state.control().clone(),
        events,
        database,
        missed: None,
        may_look: Box::new(move || state.live().access.may_look(&headers)),
    };
    let feed = Feed { missed: seen.and_then(|seen| feed.missed_since(&seen, last)), ..feed };
    let sse = Sse::new(messages(feed)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // Proxies that gather answers before they pass them on are asked not to.
    Ok(([("x-accel-buffering", "no")], sse))
}

/// What one client is sent.
struct Feed {
    events: Receiver<Arc<Event>>,
    /// Events of this database alone.
    database: Option<String>,
    started_at_ms: i64,
    /// What the client is to be told first.
    missed: Option<Message>,
    control: Control,
    /// The databases that the host has not stopped work on.
    running: BTreeSet<String>,
    /// Whether the client still may: a reload may have taken its token back.
    may_look: Box<dyn Fn() -> bool + Send>,
}

fn wanted(database: Option<&String>, name: &str) -> bool {
    database.is_none_or(|database| database == name)
}

impl Feed {
    /// What a client missed whose last event was `seen`.
    fn missed_since(&self, seen: &str, last: u64) -> Option<Message> {
        let number = seen.split_once('-').and_then(|(started, number)| {
            let here = started.parse() == Ok(self.started_at_ms);
            number.parse::<u64>().ok().filter(|number| here && *number <= last)
        });
        match number.map(|number| last - number) {
            Some(0) => None,
            lost => Some(Message::lost(lost)),
        }
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        if let Some(lost) = self.missed.take() {
            return Some(lost);
        }
        loop {
            if self.running.is_empty() && self.control.is_stopping() {
                return None;
            }
            let received = timeout(LOOK, self.events.recv()).await;
            if !(self.may_look)() {
                return None;
            }
            // Where nothing happened.
            let Ok(received) = received else { continue };
            match received {
                Ok(event) if wanted(self.database.as_ref(), &event.database) => {
                    if matches!(event.kind, EventKind::Stopped) {
                        self.running.remove(&event.database);
                    }
                    return Some(Message::Event(Box::new(HostEvent::of(&event, self.started_at_ms))));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => return Some(Message::lost(Some(lost))),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Message {
    fn lost(lost: Option<u64>) -> Self {
        Message::Lost(Lost { kind: "lost", lost })
    }

    /// As it is sent.
    fn sent(&self) -> sse::Event {
        // What is told has texts for keys, and so always is JSON.
        let event = sse::Event::default().json_data(self).unwrap_or_default();
        match self {
            Message::Event(told) => event.id(&told.id),
            Message::Lost(_) => event,
        }
    }
}

fn messages(feed: Feed) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(feed, |mut feed| async move { Some((Ok(feed.next().await?.sent()), feed)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::scheduler::event::Events;

    /// The feed of a client that has subscribed to these events, of one database or of all.
    fn feed(events: &Events, database: Option<&str>) -> Feed {
        let running = ["a", "b"].into_iter().filter(|name| database.is_none_or(|database| database == *name));
        Feed {
            events: events.subscribe(),
            database: database.map(str::to_owned),
            started_at_ms: 5,
            missed: None,
            control: Control::default(),
            running: running.map(str::to_owned).collect(),
            may_look: Box::new(|| true),
        }
    }

    async fn id(feed: &mut Feed) -> String {
        match feed.next().await {
            Some(Message::Event(event)) => event.id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_client_that_lags_behind_is_told_how_many_it_lost_and_goes_on() {
        let events = Events::default();
        let mut feed = feed(&events, None);
        for _ in 0..70_000 {
            events.emit("a", EventKind::Resumed);
        }
        let lost = 70_000 - 65_536;
        assert_eq!(feed.next().await, Some(Message::lost(Some(lost))));
        assert_eq!(id(&mut feed).await, format!("5-{}", lost + 1));
        assert_eq!(id(&mut feed).await, format!("5-{}", lost + 2));
    }

    #[tokio::test]
    async fn a_client_that_comes_back_is_told_what_it_missed() {
        let feed = feed(&Events::default(), None);
        assert_eq!(feed.missed_since("5-40", 40), None);
        assert_eq!(feed.missed_since("5-30", 40), Some(Message::lost(Some(10))));
        for of_another_host in ["4-30", "5-41", "5-", "nonsense", ""] {
            assert_eq!(feed.missed_since(of_another_host, 40), Some(Message::lost(None)), "{of_another_host}");
        }
    }

    #[tokio::test]
    async fn one_database_alone_is_told_of_and_the_stream_ends_with_its_host() {
        let events = Events::default();
        let mut feed = feed(&events, Some("b"));
        events.emit("a", EventKind::Resumed);
        events.emit("b", EventKind::Resumed);
        events.emit("a", EventKind::Stopped);
        feed.control.stop();
        events.emit("b", EventKind::Stopped);
        assert_eq!(id(&mut feed).await, "5-2");
        assert_eq!(id(&mut feed).await, "5-4");
        assert_eq!(feed.next().await, None);
    }
}
