"""Holds updates while replicas lag behind or sessions wait for locks, and while nobody knows whether they do."""

from math import inf

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.pacing import Admission_Run, Admission_Wait, Delay, Outcome_Failed
from wit_world.imports import log, settings, signals

# The signals that hold now: from above one bound until they are down to another, so that a value near one does not hold
# and let go by turns. An instance is for one database.
holding = set()


class Iteration(exports.pacing.Iteration):
    """One iteration of one update: it is entered, perhaps several times, until it lets a batch run."""

    def begin(self, database):
        renew(self)
        self.database = database
        self.guards = list(guards())
        self.stale_after_ms, self.check_ms = whole("stale_after_ms", 10_000), whole("check_ms", 500)
        self.rest_ms, self.target_ms = whole("rest_ms", 100), whole("target_ms", 100)
        return self

    def enter(self):
        if self.rest_ms > 0:
            rest, self.rest_ms = self.rest_ms, 0
            return Admission_Wait(Delay(rest, "rest between batches"))
        # Every signal is looked at each time, so that none keeps holding for what is long over.
        reasons = [reason for guard in self.guards if (reason := self.reason(*guard))]
        return Admission_Wait(Delay(self.check_ms, "; ".join(reasons))) if reasons else Admission_Run(self.target_ms)

    def reason(self, signal, unit, hold, resume):
        """Why this signal holds the update, where it does."""
        reading = signals.read(self.database, signal)
        if reading is None:
            return f"{signal} was never read"
        if reading.age > self.stale_after_ms:
            return f"{signal} was last read {reading.age // 1_000} s ago"
        if reading.value <= (resume if signal in holding else hold):
            return holding.discard(signal)
        holding.add(signal)
        bound = f"not yet down to {short(resume)}" if reading.value <= hold else f"more than {short(hold)}"
        return f"{signal} is {reading.value:.0f}{unit}, {bound}{unit}"

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
        return ITERATION.begin(database_name)


def guards():
    """The signals to look at with their units and bounds, as the settings say. An Err holds the update, and is shown."""
    keys = {"replication-lag": ("replication_lag_ms", " ms", 1_000.0), "waiting-sessions": ("waiting_sessions", "", 3.0)}
    bounds = {signal: bound(f"max_{key}", default) for signal, (key, _, default) in keys.items()}
    if all(hold is None for hold in bounds.values()):
        raise Err('settings `max_replication_lag_ms` and `max_waiting_sessions` are both "off": nothing is left to guard')
    for signal, (key, unit, _) in keys.items():
        hold, resume = bounds[signal], bound(f"resume_{key}", None)
        if hold is None:
            continue
        if resume is not None and resume > hold:
            raise Err(f"setting `resume_{key}` is {short(resume)}, more than `max_{key}`, which is {short(hold)}")
        yield signal, unit, hold, hold / 2 if resume is None else resume


def bound(key, default):
    """A setting that is a bound; None where it is "off"."""
    text = settings.get(key)
    if text is None or text.strip() == "off":
        return default if text is None else None
    try:
        value = float(text)
    except ValueError:
        value = inf
    if 0 <= value < inf:
        return value
    raise Err(f'setting `{key}` is "{text}", neither a number of 0 or more nor "off"')


def whole(key, default):
    """A setting that is a number of milliseconds."""
    text = settings.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise Err(f'setting `{key}` is "{text}", not a number from 0 to {2**31 - 1}')
    return int(text)


def short(number):
    """1000 for 1000.0."""
    return repr(number).removesuffix(".0")
