// So many items a second and no more, on average: after a batch the update rests until what it did is within its budget.

import { Admission, Outcome, fail, log, number, run, wait } from './contract';

/// How long the next batch has to wait, in milliseconds.
let owedMs: f64 = 0;

/// How long an item took in the last batch, in milliseconds; 0 where nothing is known.
let itemMs: f64 = 0;

export class Iteration {
  itemsPerSecond: u32 = number('items_per_second', 1_000);
  targetMs: u32 = number('target_ms', 100);

  constructor(public update: string, public database: string, public oneShot: bool) {
    if (this.itemsPerSecond == 0) fail('setting `items_per_second` is 0: nothing would ever run');
    if (oneShot) owedMs = 0; // One go, whose items nobody counts.
  }

  enter(): Admission {
    if (owedMs >= 1) {
      const rest = <u32>Math.min(Math.ceil(owedMs), 3_600_000);
      owedMs = 0;
      return wait(rest, `budget of ${this.itemsPerSecond} items a second`);
    }
    // Not more than a second's worth at once.
    const mostMs = itemMs * <f64>this.itemsPerSecond;
    return run(itemMs > 0 && mostMs < <f64>this.targetMs ? <u32>mostMs : this.targetMs);
  }

  exit(outcome: Outcome): void {
    if (outcome.failed) log('warn', `the batch failed: ${outcome.why}`);
    if (!outcome.completed || outcome.items == 0) return;
    itemMs = outcome.durationMs / <f64>outcome.items;
    owedMs = Math.max(0, (<f64>outcome.items * 1_000) / <f64>this.itemsPerSecond - outcome.durationMs);
  }
}
