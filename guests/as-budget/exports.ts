// wit/controller.wit for AssemblyScript, by hand: what the host calls, as the component model's canonical ABI has it.
// Nothing here needs a change, as long as the contract has none: the policy is in policy.ts.

import { Outcome, begin, failure, taken } from './contract';
import { Iteration } from './policy';

@external("[export]tidegate:controller/pacing@0.1.0", "[resource-new]iteration")
declare function newHandle(iteration: usize): i32;

/// Where answers lie.
const ANSWER: usize = memory.data(20, 8);

/// The text of the last answer: kept until the next.
let answerText: ArrayBuffer = new ArrayBuffer(0);

export function cabi_realloc(old: usize, _oldLen: usize, align: usize, len: usize): usize {
  if (len == 0) return align;
  return old ? heap.realloc(old, len) : heap.alloc(len);
}

export function on_update(u: usize, un: i32, d: usize, dn: i32, oneShot: i32): usize {
  begin();
  const iteration = new Iteration(taken(u, un), taken(d, dn), oneShot != 0);
  if (failure.length > 0) return failed();
  // The host holds it: kept from the collector until it is dropped.
  return answered(newHandle(__pin(changetype<usize>(iteration))), 0);
}

export function enter(iteration: usize): usize {
  begin();
  const admission = changetype<Iteration>(iteration).enter();
  if (failure.length > 0) return failed();
  if (!admission.waits) return answered(0, admission.ms);
  answered(1, admission.ms);
  return answeredWith(admission.reason, 12);
}

// A variant's cases share their numbers: a and b are a batch's items and size, or a text's address and length.
export function exit(iteration: usize, tag: i32, a: i32, b: i32, duration: f64, finished: i32): usize {
  begin();
  const outcome = new Outcome();
  if (tag == 0) {
    outcome.completed = true;
    outcome.items = a;
    outcome.batchSize = b;
    outcome.durationMs = duration;
    outcome.finished = finished != 0;
  } else if (tag == 1) {
    outcome.failed = true;
    outcome.why = taken(a, b);
  } else {
    outcome.cancelled = true;
  }
  changetype<Iteration>(iteration).exit(outcome);
  return failure.length > 0 ? failed() : answered(0, 0);
}

export function drop(iteration: usize): void {
  __unpin(iteration);
  // Between two iterations nothing of the policy's is on the stack: the moment to collect.
  __collect();
}

/// ok with two numbers: a handle, or an admission's tag and milliseconds.
function answered(first: u32, second: u32): usize {
  store<u32>(ANSWER, 0);
  store<u32>(ANSWER, first, 4);
  store<u32>(ANSWER, second, 8);
  return ANSWER;
}

/// Puts a text's address and length into the answer.
function answeredWith(text: string, at: usize): usize {
  answerText = String.UTF8.encode(text);
  store<usize>(ANSWER + at, changetype<usize>(answerText));
  store<i32>(ANSWER + at, answerText.byteLength, 4);
  return ANSWER;
}

function failed(): usize {
  store<u32>(ANSWER, 1);
  return answeredWith(failure, 4);
}
