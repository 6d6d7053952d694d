"""What the status page is told, as JSON: the state in words, the numbers of now, and the last hour in steps.

Where the numbers come from lives in `history`, how they are drawn in `admin_page/`. Every series has a name that is a
constant word, the value of one label; one without a label is called `all`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.history import History, Interval, Labels, Numbers, added, quantile, read

Json = dict[str, Any]
Where = tuple[str, str] | None

# A chart's total, the label whose values are its series, and what else a series' labels must say.
COUNTED: Final[Mapping[str, tuple[str, str, Where]]] = {
    "questions": ("bridge_work_total", "result", ("kind", "question")),
    "votes": ("bridge_work_total", "result", ("kind", "vote")),
    "events": ("bridge_events_total", "result", None),
    "kapa": ("bridge_kapa_call_seconds_count", "outcome", None),
    "slack": ("bridge_slack_call_seconds_count", "outcome", None),
    "budget": ("bridge_budget_wait_seconds_count", "budget", None),
}
# A chart's histogram, and what its series' labels must say.
TIMED: Final[Mapping[str, tuple[str, Where]]] = {
    "first_text": ("bridge_first_text_seconds", None),
    "answer": ("bridge_answer_seconds", ("result", "answered")),
    "added": ("bridge_added_seconds", None),
    "intake": ("bridge_intake_seconds", None),
    "budget": ("bridge_budget_wait_seconds", None),
}
# The histogram of calls, and the label that names what was called.
CALLED: Final = {
    "kapa": ("bridge_kapa_call_seconds", "endpoint"),
    "slack": ("bridge_slack_call_seconds", "method"),
}
# What all processes on one Redis share, and what it is called in Prometheus.
SHARED: Final = {
    "unfinished": "bridge_inbox_unfinished",
    "oldest": "bridge_inbox_oldest_seconds",
    "untaken": "bridge_inbox_untaken_seconds",
    "later": "bridge_inbox_later",
    "dead_letters": "bridge_dead_letters",
}
_TAKES_WRITES: Final = "bridge_redis_takes_writes"
_RUNNING: Final = "bridge_work_running"
_BUILD: Final = "bridge_build_info"

# What each check of readiness is called, and where it fails: what that is, what it means, and what to do.
CHECKS: Final[Mapping[str, Mapping[str, str]]] = {
    "redis": {
        "title": "Redis takes writes",
        "trouble": "Redis does not take writes",
        "means": "It refuses them or cannot be reached. Slack is told that its events were not taken in, and sends "
        "them again; what was taken in waits. It goes on by itself once Redis takes writes.",
        "do": "The log says why: redis_refuses_writes with Redis' reason, or redis_not_reached. What to do about each "
        "is in docs/operations.md, “When Redis refuses writes”.",
    },
    "redis_unfit": {
        "title": "Redis takes writes",
        "trouble": "Redis may lose questions",
        "means": "It takes writes, but was configured since the start so that it would drop questions in silence.",
        "do": "The log says what is wrong: redis_at_risk. How it should be is in docs/operations.md, “Redis”.",
    },
    "slack": {
        "title": "Slack is there",
        "trouble": "Slack is not there",
        "means": "The connection of Socket Mode is down, or Slack's Web API does not answer. What was taken in waits, "
        "and the bridge keeps trying.",
        "do": "The log says why: socket_not_connected or slack_not_reached. Look at the network, and at "
        "status.slack.com. The events are explained in docs/operations.md, “What the log says”.",
    },
    "started": {
        "title": "It has started",
        "trouble": "it is still starting",
        "means": "It waits for Slack to say who the bridge is, and has not begun to work.",
        "do": "Wait some seconds. If it goes on, the log says why: slack_not_reached.",
    },
    "not_draining": {
        "title": "It is not draining",
        "trouble": "it is draining",
        "means": "It was told to stop: it takes nothing in any more and finishes what it is at work on, for "
        "BRIDGE_DRAIN_SECONDS. What is left then, another process takes up.",
        "do": "Nothing, if you stopped it. What else stops a process is in docs/operations.md, “Processes”.",
    },
}


def status(history: History, passes: Mapping[str, bool], steps: Sequence[Interval], *, at: float) -> Json:
    """Give all that the page shows, at `at` (seconds since the epoch), with `steps` of the history, oldest first.

    Times of steps are seconds since the epoch, durations seconds. A quantile is null where nothing was observed, and a
    number that all processes share where Redis could not be asked.
    """
    now, bounds = history.clock(), history.latest.bounds
    gauges = _gauges(history)
    build = dict(next(iter(gauges.get(_BUILD, {})), ()))
    return {
        "version": build.get("version", ""),
        "role": build.get("role", ""),
        "at": at,
        "started": at - (now - history.started),
        "state": _state(passes),
        "checks": _checks(passes, takes_writes=_takes_writes(gauges)),
        "now": _now(gauges),
        "hour": _hour(list(history.hour), bounds),
        "starts": [round(at - (now - step.end) - step.seconds, 3) for step in steps],
        "ends": [round(at - (now - step.end), 3) for step in steps],
        "counted": {chart: _counted(steps, *what) for chart, what in COUNTED.items()},
        "timed": {chart: _timed(steps, bounds, *what) for chart, what in TIMED.items()},
        "shared": {chart: _shared(steps, name) for chart, name in SHARED.items()},
        "calls": {chart: _calls(steps, bounds, *what) for chart, what in CALLED.items()},
    }


def _gauges(history: History) -> Numbers:
    """Read the gauges as they are now, and no counters, which take longer."""
    names = (*SHARED.values(), _TAKES_WRITES, _RUNNING, _BUILD)
    return read(history.registry.restricted_registry(names).collect(), history.clock()).gauges


def _state(passes: Mapping[str, bool]) -> str:
    if all(passes.values()):
        return "ready"
    return "not_ready" if passes.get("not_draining", True) else "draining"


def _checks(passes: Mapping[str, bool], *, takes_writes: bool) -> list[Json]:
    words = {**CHECKS, "redis": CHECKS["redis_unfit"]} if takes_writes else CHECKS
    return [{"name": name, "passes": passing, **words.get(name, {})} for name, passing in passes.items()]


def _takes_writes(gauges: Numbers) -> bool:
    return any(gauges.get(_TAKES_WRITES, {}).values())


def _now(gauges: Numbers) -> Json:
    running = {_name(labels): int(count) for labels, count in gauges.get(_RUNNING, {}).items()}
    if not _takes_writes(gauges):
        # What was found last stays in the gauges for as long as Redis cannot be asked.
        return {"running": running, "shared": None}
    shared = {
        chart: {_name(labels): round(value, 1) for labels, value in gauges.get(metric, {}).items()}
        for chart, metric in SHARED.items()
    }
    return {"running": running, "shared": shared}


def _name(labels: Labels) -> str:
    return labels[0][1] if labels else "all"


def _hour(steps: Sequence[Interval], bounds: Mapping[str, Sequence[float]]) -> Json:
    counted = {chart: _counted(steps, *what) for chart, what in COUNTED.items()}
    return {
        "seconds": round(sum(step.seconds for step in steps), 1),
        "counted": {chart: {name: sum(each) for name, each in series.items()} for chart, series in counted.items()},
        "timed": {chart: _summary(_observed(steps, *what), bounds.get(what[0], ())) for chart, what in TIMED.items()},
    }


def _counted(steps: Sequence[Interval], metric: str, by: str, where: Where) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, step in enumerate(steps):
        for labels, count in step.counts.get(metric, {}).items():
            if where is None or where in labels:
                found.setdefault(dict(labels)[by], [0] * len(steps))[place] += int(count)
    return found


def _observed(steps: Sequence[Interval], metric: str, where: Where) -> tuple[int, ...]:
    found = [step.buckets[metric] for step in steps if metric in step.buckets]
    wanted = [counts for series in found for labels, counts in series.items() if where is None or where in labels]
    return added(*wanted)


def _summary(counts: Sequence[int], bounds: Sequence[float]) -> Json:
    return {
        "observed": sum(counts),
        **{name: _rounded(quantile(share, bounds, counts)) for name, share in (("p50", 0.5), ("p95", 0.95))},
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)


def _timed(steps: Sequence[Interval], bounds: Mapping[str, Sequence[float]], metric: str, where: Where) -> Json:
    own = bounds.get(metric, ())
    each = [_summary(_observed([step], metric, where), own) for step in steps]
    return {
        # What took longer than this is known to have, and no more.
        "most": own[-2] if own else None,
        "all": _summary(_observed(steps, metric, where), own),
        **{name: [one[name] for one in each] for name in ("observed", "p50", "p95")},
    }


def _shared(steps: Sequence[Interval], metric: str) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for place, step in enumerate(steps):
        if _takes_writes(step.gauges):
            for labels, value in step.gauges.get(metric, {}).items():
                found.setdefault(_name(labels), [None] * len(steps))[place] = round(value, 1)
    return found


def _calls(steps: Sequence[Interval], bounds: Mapping[str, Sequence[float]], metric: str, by: str) -> list[Json]:
    """Give a row for each thing that was called and each outcome of it, the most frequent first."""
    found: dict[Labels, list[tuple[int, ...]]] = {}
    for step in steps:
        for labels, counts in step.buckets.get(metric, {}).items():
            found.setdefault(labels, []).append(counts)
    rows = []
    for labels, each in found.items():
        named = dict(labels)
        summary = _summary(added(*each), bounds.get(metric, ()))
        rows.append({"called": named[by], "outcome": named["outcome"], **summary})
    return sorted(rows, key=lambda row: (-row["observed"], row["called"], row["outcome"]))
