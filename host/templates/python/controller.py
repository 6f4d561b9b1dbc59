"""The policy: a batch waits while replicas lag behind, and otherwise aims at a target duration."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.pacing import Admission_Run, Admission_Wait, Delay, Outcome_Failed
from wit_world.imports import log, settings, signals

# A reading older than this, in milliseconds, says nothing about now.
STALE_MS = 30_000

# How long to wait before asking again, in milliseconds.
WAIT_MS = 500


class Iteration(exports.pacing.Iteration):
    """One iteration of one update: it is entered, perhaps several times, until it lets a batch run."""

    def begin(self, database, target_ms, max_lag_ms):
        renew(self)
        self.database, self.target_ms, self.max_lag_ms = database, target_ms, max_lag_ms
        return self

    def enter(self):
        lag = signals.read(self.database, "replication-lag")
        if lag is None:
            return Admission_Run(self.target_ms)  # Nobody measures it here.
        if lag.age > STALE_MS:
            return Admission_Run(self.target_ms // 10)  # Nobody knows: go on, but gently.
        if lag.value > self.max_lag_ms:
            return Admission_Wait(Delay(WAIT_MS, f"replication lag {int(lag.value)} ms > {self.max_lag_ms} ms"))
        return Admission_Run(self.target_ms)

    def exit(self, outcome):
        if isinstance(outcome, Outcome_Failed):
            log.write(log.Level.WARN, f"the batch failed: {outcome.value}")


# componentize-py keeps every object that it hands to the host, for ever. There is one iteration at a time, and so one
# object is enough for all of them.
ITERATION = Iteration()


def renew(handed_out):
    """Takes back what componentize-py noted on an object when it handed it out, so that it can be handed out again."""
    noted = vars(handed_out)
    if finalizer := noted.pop("finalizer", None):
        finalizer.detach()
    noted.pop("__componentize_py_handle", None)


class Pacing(exports.Pacing):
    def on_update(self, update_name, database_name, one_shot):
        return ITERATION.begin(database_name, number("target_ms", 100), number("max_lag_ms", 1000))


def number(key, default):
    """A setting that the operator may write below [controller.settings]. An Err holds the update, and is shown."""
    text = settings.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Err(f'setting `{key}` is "{text}", not a number')
    return int(text)
