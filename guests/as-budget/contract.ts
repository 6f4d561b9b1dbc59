// wit/controller.wit for AssemblyScript, by hand: what a policy uses. See exports.ts for what the host calls.
// Nothing here needs a change, as long as the contract has none: the policy is in policy.ts.

/// What was measured last: a value, and how many milliseconds ago.
export class Reading {
  constructor(public value: f64, public age: u32) {}
}

/// The answer of `enter`: made by `run` or `wait`.
export class Admission {
  constructor(public waits: bool, public ms: u32, public reason: string) {}
}

/// How a batch ended: numbers where it completed, `why` where it failed.
export class Outcome {
  completed: bool = false;
  failed: bool = false;
  cancelled: bool = false;
  items: u32 = 0;
  batchSize: u32 = 0;
  durationMs: f64 = 0;
  finished: bool = false;
  why: string = '';
}

/// Lets a batch run that aims at so many milliseconds.
export function run(ms: u32): Admission {
  return new Admission(false, ms, '');
}

/// Has the host wait for so many milliseconds, and enter again. Operators see the reason.
export function wait(ms: u32, reason: string): Admission {
  return new Admission(true, ms, reason);
}

/// The latest reading of a signal, if there is one.
export function read(database: string, signal: string): Reading | null {
  const d = String.UTF8.encode(database);
  const s = String.UTF8.encode(signal);
  signalsRead(changetype<usize>(d), d.byteLength, changetype<usize>(s), s.byteLength, FOUND);
  return load<u8>(FOUND) ? new Reading(load<f64>(FOUND, 8), load<u32>(FOUND, 16)) : null;
}

/// What the operator wrote below [controller.settings], if anything.
export function setting(key: string): string | null {
  const k = String.UTF8.encode(key);
  settingsGet(changetype<usize>(k), k.byteLength, FOUND);
  return load<u8>(FOUND) ? taken(load<usize>(FOUND, 4), load<i32>(FOUND, 8)) : null;
}

/// A setting that is a whole number below 2^31. What is none is an error of on-update: see `fail`.
export function number(key: string, otherwise: u32): u32 {
  const text = setting(key);
  if (text == null) return otherwise;
  let value: u64 = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48;
    const fits = digit >= 0 && digit <= 9 && i <= 9;
    value = fits ? value * 10 + digit : u64.MAX_VALUE >> 8;
  }
  if (text.length == 0 || value > <u64>i32.MAX_VALUE) fail(`setting \`${key}\` is "${text}", not a number`);
  return <u32>value;
}

/// Makes an error of the callback, in place of what it returns. The language has no exceptions: go on and return.
export function fail(message: string): void {
  if (failure.length == 0) failure = message;
}

/// A line for the host's log: trace, debug, info, warn or error.
export function log(level: string, message: string): void {
  const m = String.UTF8.encode(message);
  logWrite(LEVELS.indexOf(level), changetype<usize>(m), m.byteLength);
}

/// What the callback in hand failed with; empty where it did not.
export let failure: string = '';

/// Forgets it: a callback begins.
export function begin(): void {
  failure = '';
}

/// A text that the host passed, and its room given back.
export function taken(at: usize, len: i32): string {
  if (len == 0) return '';
  const text = String.UTF8.decodeUnsafe(at, len);
  heap.free(at);
  return text;
}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'];

/// Where the host puts what an import answers.
const FOUND: usize = memory.data(24, 8);

@external("tidegate:controller/signals@0.1.0", "read")
declare function signalsRead(d: usize, dn: i32, s: usize, sn: i32, found: usize): void;
@external("tidegate:controller/settings@0.1.0", "get")
declare function settingsGet(key: usize, len: i32, found: usize): void;
@external("tidegate:controller/log@0.1.0", "write")
declare function logWrite(level: i32, message: usize, len: i32): void;
