//! The deeds.

use std::hint::black_box;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;
use std::{env, fs, mem, process, slice, str, thread};

use crate::Iteration;
use crate::bindings::exports::tidegate::controller::pacing;
use crate::bindings::tidegate::controller::log::{self, Level};
use crate::bindings::tidegate::controller::signals;
use crate::plan::Deed;

/// Bytes of memory that are taken at once.
const PIECE: u64 = 65_536;

/// Beyond any memory that a guest of these tests has.
const NOWHERE: usize = 0xfff0_0000;

/// Does what is due. What is answered, and not done, the callbacks see to.
pub fn act(due: Option<(Deed, u64)>) {
    let Some((deed, amount)) = due else { return };
    match deed {
        Deed::Loop => (0..amount).for_each(|turn| _ = black_box(turn)),
        Deed::HostCalls => (0..amount).for_each(|_| _ = signals::read("", "")),
        Deed::Recursion => _ = black_box(down(amount, 1)),
        Deed::Memory => (0..amount.div_ceil(PIECE)).for_each(|_| keep(PIECE as usize)),
        Deed::Leak => keep(amount as usize),
        Deed::Log => (0..amount).for_each(|line| log::write(Level::Info, &format!("line {line}"))),
        Deed::LogLine => log::write(Level::Info, &text(amount)),
        Deed::Handles => (0..amount).for_each(|_| hold_another()),
        Deed::Sleep => thread::sleep(Duration::from_millis(amount)),
        Deed::Trap => core::arch::wasm32::unreachable(),
        Deed::Exit => process::exit(amount as i32),
        Deed::BadPointer => log::write(Level::Info, nowhere()),
        Deed::BadText => log::write(Level::Info, not_utf8()),
        Deed::Outside => outside(),
        Deed::BadHandle | Deed::BadAnswer | Deed::Error | Deed::Reason => panic!("not in this callback"),
        Deed::Target | Deed::Wait | Deed::BatchSize => panic!("not in this callback"),
    }
}

/// A text of so many bytes.
pub fn text(bytes: u64) -> String {
    let mut text = "as told ".repeat(bytes.div_ceil(8) as usize);
    text.truncate(bytes as usize);
    text
}

/// Calls itself, with nothing on any stack but its own frame, and in a form that no compiler makes a loop of.
#[inline(never)]
fn down(calls: u64, seed: u64) -> u64 {
    match calls {
        0 => seed,
        _ => down(calls - 1, seed).wrapping_mul(31).wrapping_add(calls),
    }
}

/// Takes memory that is never given back. Nothing is written to it: that would cost fuel.
fn keep(bytes: usize) {
    mem::forget(black_box(Vec::<u8>::with_capacity(bytes)));
}

/// An iteration that nobody ever drops.
fn hold_another() {
    mem::forget(pacing::Iteration::new(Iteration { update_name: String::new() }));
}

/// An iteration that is none.
pub fn bad_handle() -> pacing::Iteration {
    // SAFETY: none. The handle does not exist, and the host has to see that.
    unsafe { pacing::Iteration::from_handle(12_345) }
}

/// A text that is not in memory.
fn nowhere() -> &'static str {
    // SAFETY: none. The host has to see it; this side never reads it.
    unsafe { str::from_utf8_unchecked(slice::from_raw_parts(NOWHERE as *const u8, 64)) }
}

/// The same as an answer.
pub fn bad_answer() -> String {
    // SAFETY: none, as above.
    unsafe { String::from_raw_parts(NOWHERE as *mut u8, 64, 64) }
}

fn not_utf8() -> &'static str {
    // SAFETY: none, as above.
    unsafe { str::from_utf8_unchecked(black_box(&[b'a', 0xff])) }
}

/// Tries whatever would lead out of the sandbox, and writes to the log what came of it.
fn outside() {
    let tell = |what: &str, got: Result<String, String>| log::write(Level::Info, &format!("{what}: {got:?}"));
    let failed = |error: std::io::Error| error.kind().to_string();
    tell("read a file", fs::read_to_string("/etc/passwd").map_err(failed));
    tell("write a file", fs::write("/tmp/hostile", "was here").map(|()| "written".to_owned()).map_err(failed));
    tell("read a folder", fs::read_dir("/").map(|entries| entries.count().to_string()).map_err(failed));
    tell("connect", TcpStream::connect("127.0.0.1:22").map(|_| "connected".to_owned()).map_err(failed));
    tell("send", UdpSocket::bind("127.0.0.1:0").map(|_| "bound".to_owned()).map_err(failed));
    tell("look up a name", "localhost:80".to_socket_addrs().map(|found| found.count().to_string()).map_err(failed));
    tell("environment", Ok(env::vars().count().to_string()));
    tell("arguments", Ok(env::args().count().to_string()));
    tell("standard input", std::io::read_to_string(std::io::stdin()).map_err(failed));
}
