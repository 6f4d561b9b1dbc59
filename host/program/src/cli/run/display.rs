//! Shows a host's events as they come: bars on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use indicatif::MultiProgress;
use tidegate::scheduler::event::Event;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinHandle;

use super::bars::Bars;
use super::plain::Plain;
use crate::cli::output;

/// Shows events until there are no more.
pub(super) fn show(events: Receiver<Arc<Event>>, bars: MultiProgress) -> JoinHandle<()> {
    let view = match io::stderr().is_terminal() {
        true => View::Bars(Bars::new(bars)),
        false => View::Plain(Plain::default()),
    };
    tokio::spawn(follow(events, view))
}

enum View {
    Bars(Bars),
    Plain(Plain),
}

async fn follow(mut events: Receiver<Arc<Event>>, mut view: View) {
    loop {
        match (events.recv().await, &mut view) {
            (Ok(event), View::Bars(bars)) => bars.show(&event),
            (Ok(event), View::Plain(plain)) => plain.lines(&event).iter().for_each(|line| output::line(line)),
            (Err(RecvError::Lagged(lost)), _) => tracing::warn!(lost, "events came faster than they could be shown"),
            (Err(RecvError::Closed), _) => return,
        }
    }
}
