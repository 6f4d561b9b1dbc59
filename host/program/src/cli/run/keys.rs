//! The terminal's echo of keys such as Ctrl-C. The bars leave the cursor at the end of a line, where the "^C" of a
//! terminal makes a new one: the bars would then be taken away one line too low, and the first line stay.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Keeps the terminal from echoing such keys until this is restored or dropped.
pub(super) struct Unechoed {
    /// How the terminal was set before; `None` where nothing was changed.
    before: Mutex<Option<Termios>>,
}

impl Unechoed {
    /// Begins, where standard error is the terminal of a process in the foreground.
    pub(super) fn new() -> Self {
        let before = Mutex::new(if io::stderr().is_terminal() { silence() } else { None });
        Self { before }
    }

    /// Sets the terminal as it was.
    pub(super) fn restore(&self) {
        let mut before = self.before.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(before) = before.take().filter(|_| in_foreground()) {
            let _ = tcsetattr(io::stderr(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for Unechoed {
    fn drop(&mut self) {
        self.restore();
    }
}

fn silence() -> Option<Termios> {
    let before = tcgetattr(io::stderr()).ok().filter(|_| in_foreground())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHOCTL);
    tcsetattr(io::stderr(), OptionalActions::Now, &silent).ok()?;
    Some(before)
}

/// Whoever sets a terminal from the background is stopped.
fn in_foreground() -> bool {
    tcgetpgrp(io::stderr()).is_ok_and(|group| group == getpgrp())
}
