// The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration.

import { Admission, Outcome, fail, log, number, read, run, wait } from './contract';

/// A reading older than this, in milliseconds, says nothing about now.
const STALE_MS: u32 = 30_000;

/// How long to wait before asking again, in milliseconds.
const WAIT_MS: u32 = 500;

/// One iteration of one update: it is entered, perhaps several times, until it lets a batch run.
export class Iteration {
  targetMs: u32 = number('target_ms', 100);
  maxLagMs: u32 = number('max_lag_ms', 1_000);

  constructor(public update: string, public database: string, public oneShot: bool) {}

  enter(): Admission {
    const lag = read(this.database, 'replication-lag');
    if (lag == null) return run(this.targetMs); // Nobody measures it here.
    if (lag.age > STALE_MS) return run(this.targetMs / 10); // Nobody knows: go on, but gently.
    if (lag.value > <f64>this.maxLagMs) {
      return wait(WAIT_MS, `replication lag ${<u64>lag.value} ms > ${this.maxLagMs} ms`);
    }
    return run(this.targetMs);
  }

  exit(outcome: Outcome): void {
    if (outcome.failed) log('warn', `the batch failed: ${outcome.why}`);
  }
}
