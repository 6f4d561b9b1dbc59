// The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.

import { read } from 'tidegate:controller/signals@0.1.0';
import { get } from 'tidegate:controller/settings@0.1.0';
import { write } from 'tidegate:controller/log@0.1.0';

// A reading older than this, in milliseconds, says nothing about now.
const STALE_MS = 30_000;

// How long to wait before asking again, in milliseconds.
const WAIT_MS = 500;

// One iteration of one update: it is entered, perhaps several times, until it lets a batch run.
class Iteration {
  constructor(database, targetMs, maxLagMs) {
    this.database = database;
    this.targetMs = targetMs;
    this.maxLagMs = maxLagMs;
  }

  enter() {
    const lag = read(this.database, 'replication-lag');
    if (lag == null) return run(this.targetMs); // Nobody measures it here.
    if (lag.age > STALE_MS) return run(this.targetMs / 10); // Nobody knows: go on, but gently.
    if (lag.value > this.maxLagMs) {
      return wait(WAIT_MS, `replication lag ${Math.trunc(lag.value)} ms > ${this.maxLagMs} ms`);
    }
    return run(this.targetMs);
  }

  exit(outcome) {
    if (outcome.tag === 'failed') write('warn', `the batch failed: ${outcome.val}`);
  }
}

export const pacing = {
  Iteration,
  onUpdate(_update, database, _oneShot) {
    return new Iteration(database, number('target_ms', 100), number('max_lag_ms', 1000));
  },
};

// Numbers of the contract are whole, and below 2^31.
const run = (ms) => ({ tag: 'run', val: Math.trunc(ms) });
const wait = (ms, reason) => ({ tag: 'wait', val: { duration: Math.trunc(ms), reason } });

// A setting that the operator may write below [controller.settings]. A string that is thrown is an error of the
// callback: it holds the update, and is shown. (What else is thrown may be a crash.)
function number(key, otherwise) {
  const text = get(key);
  if (text == null) return otherwise;
  if (!/^\d{1,9}$/.test(text)) throw `setting \`${key}\` is "${text}", not a number`;
  return Number(text);
}
