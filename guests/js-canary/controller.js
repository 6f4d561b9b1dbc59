// Small batches until some succeeded in a row, and only then the normal target: an update that harms the database, or
// that fails, does so with few rows.

import { get } from 'tidegate:controller/settings@0.1.0';
import { write } from 'tidegate:controller/log@0.1.0';

// The update in hand, and how many of its batches succeeded in a row. A host stays with an update until it ends, so that
// there is one to remember: a list of all would grow for ever.
let update = '';
let succeeded = 0;

// What the settings say; read anew for each iteration.
let batches = 0;
let canarySize = 0;
let minSize = 0;

const isProven = () => succeeded >= batches;

class Iteration {
  constructor(oneShot, targetMs) {
    this.oneShot = oneShot;
    this.targetMs = targetMs;
  }

  enter() {
    // A target of 0 asks for the least batch there is, whatever the host knows of the update's rate.
    return { tag: 'run', val: this.oneShot || isProven() ? this.targetMs : 0 };
  }

  exit(outcome) {
    if (outcome.tag === 'failed') {
      write('warn', `${update}: back to small batches: ${outcome.val}`);
      succeeded = 0;
    } else if (outcome.tag === 'completed' && outcome.val.items > 0 && !isProven()) {
      succeeded += 1;
      if (isProven()) write('info', `${update}: ${batches} small batches succeeded, from here on ${this.targetMs} ms each`);
    }
  }
}

export const pacing = {
  Iteration,
  onUpdate(name, _database, oneShot) {
    const targetMs = number('target_ms', 100);
    batches = number('canary_batches', 10);
    canarySize = number('canary_batch_size', 10);
    minSize = number('min_batch_size', 100);
    if (name !== update) {
      update = name;
      succeeded = 0;
    }
    return new Iteration(oneShot, targetMs);
  },
};

export const defaultBatchSize = { defaultBatchSize: () => (isProven() ? minSize : canarySize) };
export const minBatchSize = { minBatchSize: () => (isProven() ? minSize : canarySize) };

// A string that is thrown is an error of the callback: it holds the update, and is shown.
function number(key, otherwise) {
  const text = get(key);
  if (text == null) return otherwise;
  if (!/^\d{1,9}$/.test(text)) throw `setting \`${key}\` is "${text}", not a number`;
  return Number(text);
}
