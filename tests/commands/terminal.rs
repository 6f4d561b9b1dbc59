//! `run` on a terminal, which `script` makes.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::configuration;
use crate::support::command::Site;
use crate::support::place::{Place, row};
use crate::support::run::make_items;

/// Waits until the terminal shows this.
fn shows(shown: &Mutex<Vec<u8>>, words: &str) {
    let since = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
        if text.contains(words) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "no \"{words}\": {text:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The bars leave the cursor where an echoed "^C" would begin a new line, and they would then be taken away from the
/// wrong lines.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_is_not_echoed_into_the_bars_and_the_terminal_is_as_it_was() {
    let place = Place::sqlite();
    make_items(&place, 1_000).await;
    place.prepared().await.enqueue(&row("touch_items")).await.unwrap();
    let slow = "sleep_enabled = true\nsleep_duration_ms = 3600000";
    let site = Site::new(&configuration(&place.url).replace("sleep_enabled = false", slow));
    let program = env!("CARGO_BIN_EXE_tidegate");
    let line = format!("stty -a; trap : INT; '{program}' run; echo ended with $?; stty -a; echo over");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--command", &line, "/dev/null"]).current_dir(site.path());
    terminal.env("SHELL", "/bin/sh").env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let reader = std::thread::spawn({
        let shown = shown.clone();
        move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                shown.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        }
    });
    shows(&shown, "master: touch_items: started");
    keys.write_all(b"\x03").unwrap();
    shows(&shown, "interrupted: ending the batches that run");
    shows(&shown, "over");
    drop(keys);
    terminal.wait().unwrap();
    reader.join().unwrap();
    let shown = String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    let run = shown.split("echoke").nth(1).unwrap().split("ended with 0").next().unwrap();
    assert!(run.contains("master: stopped") && !run.contains("^C"), "{shown:?}");
    let settings: Vec<&str> = shown.split_whitespace().filter(|word| word.ends_with("echoctl")).collect();
    assert_eq!(settings, ["echoctl", "echoctl"], "{shown:?}");
}
