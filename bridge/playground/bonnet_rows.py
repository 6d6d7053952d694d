"""What the panel under the bonnet shows of each thing that happened: a row, and whether it is about a thread.

Pure. What happened is kept by the simulated servers and by `redis_watch`; `bonnet` puts it together.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bridge.playground.kapa_calls import KapaCall
from bridge.playground.redis_watch import Step
from bridge.playground.serving import Json
from bridge.playground.slack_api import Call
from bridge.playground.slack_delivery import Attempt

_CHARACTERS = 1_000
_PERMALINK = re.compile(r"/archives/(?P<channel>[A-Z0-9]+)/p(?P<seconds>[0-9]+)(?P<micros>[0-9]{6})(?:\?|$)")
_LANES = ("events", "redis", "kapa", "slack")


@dataclass
class Subject:
    """One thread: its messages (`ts`), deleted ones too, and what its answers are called at Kapa."""

    team: str
    channel: str
    thread: str
    messages: set[str]
    answers: set[str] = field(default_factory=set)
    kapa_threads: set[str] = field(default_factory=set)

    def has_event(self, attempt: Attempt) -> bool:
        """Say whether a delivery is about a message of this thread."""
        places = list(_places(attempt.body))
        return any(channel == self.channel for channel, _ in places) and any(ts in self.messages for _, ts in places)

    def has_call(self, call: Call) -> bool:
        """Say whether a call of Slack's Web API is about a message of this thread."""
        if "view" in call.args:
            return any(place[0] == self.channel and place[1] in self.messages for place in _view_places(call.args))
        if (call.args.get("channel") or call.args.get("channel_id")) != self.channel:
            return False
        return any(ts in self.messages for ts in (call.ts, call.args.get("ts"), call.args.get("thread_ts")))

    def has_step(self, step: Step) -> bool:
        """Say whether a step in Redis is of this thread's line, or of the line of one of its answers."""
        place, _, ts = step.line.rpartition(":")
        return place == f"{self.team}:{self.channel}" and ts in self.messages

    def has_kapa_call(self, call: KapaCall) -> bool:
        """Say whether a request to Kapa asks a question of this thread, or votes on one of its answers."""
        if "question_answer" in call.body:
            return call.body["question_answer"] in self.answers
        if call.asked is not None and call.asked.thread_id in self.kapa_threads:
            return True
        metadata = call.body.get("metadata")
        match = _PERMALINK.search(str(metadata.get("origin_url"))) if isinstance(metadata, dict) else None
        return bool(
            match and match["channel"] == self.channel and f"{match['seconds']}.{match['micros']}" in self.messages
        )


def messages_of(calls: Iterator[Call], channel: str, thread: str) -> set[str]:
    """Give the messages that calls of the Web API put into a thread."""
    return {
        call.ts
        for call in calls
        if call.ts and call.args.get("channel") == channel and call.args.get("thread_ts") == thread
    }


def event_row(attempt: Attempt) -> Json:
    """Show one attempt to deliver an event or an interaction."""
    event = attempt.body.get("event", attempt.body)
    outcome = "" if attempt.seconds is None else attempt.problem or _status(attempt.status)
    detail = {
        "event": event,
        "event_id": attempt.body.get("event_id"),
        "attempt": attempt.attempt,
        "status": attempt.status,
    }
    label = str(event.get("subtype") or attempt.type)
    return _row("events", attempt.number, attempt.at, attempt.seconds, label, outcome, detail)


def step_row(step: Step) -> Json:
    """Show one step of a ticket's life in Redis."""
    detail = {"kind": step.kind, "line": step.line, **step.detail}
    return _row("redis", step.number, step.at, 0.0, step.label, step.outcome, detail)


def kapa_row(call: KapaCall) -> Json:
    """Show one request to Kapa."""
    seconds = None if call.ended is None else call.ended - call.at
    detail: Json = {"request": call.body, "status": call.status}
    if call.asked is not None:
        first = call.asked.first_text
        detail |= {
            "question_answer_id": call.asked.question_answer_id,
            "thread_id": call.asked.thread_id,
            "is_follow_up": call.asked.is_follow_up,
            "first_text_after": None if first is None else first - call.at,
            "whole_answer_after": seconds,
        }
    return _row("kapa", call.number, call.at, seconds, call.label, call.outcome, detail)


def call_row(call: Call) -> Json:
    """Show one call of Slack's Web API."""
    detail = {"args": call.args, "ts": call.ts}
    outcome = call.broken or call.outcome
    return _row("slack", call.number, call.at - call.seconds, call.seconds, call.method, outcome, detail)


def _row(lane: str, number: int, at: float, seconds: float | None, label: str, outcome: str, detail: Json) -> Json:
    return {
        "id": number * len(_LANES) + _LANES.index(lane),
        "lane": lane,
        "at": at,
        "seconds": seconds,
        "label": label,
        "outcome": outcome,
        "detail": _clipped(detail),
    }


def _clipped(value: Any) -> Any:
    """Give a copy in which no text is so long that nobody would read it."""
    if isinstance(value, str):
        return value if len(value) <= _CHARACTERS else f"{value[:_CHARACTERS]}…"
    if isinstance(value, dict):
        return {key: _clipped(part) for key, part in value.items()}
    return [_clipped(part) for part in value] if isinstance(value, list) else value


def _status(status: int) -> str:
    return "ok" if 200 <= status < 300 else str(status)


def _places(body: Json) -> Iterator[tuple[Any, Any]]:
    """Give channel and `ts` of all that a payload is about; None for one that is not said there."""
    event = body.get("event", body)
    channel = event.get("channel")
    yield (channel.get("id") if isinstance(channel, dict) else channel), None
    parts = [event.get(name) for name in ("message", "previous_message", "item", "container")]
    for part in (event, *(part for part in parts if isinstance(part, dict))):
        yield part.get("channel") or part.get("channel_id"), None
        yield from ((None, part.get(name)) for name in ("ts", "thread_ts", "deleted_ts", "message_ts"))
    yield from _view_places(event)


def _view_places(body: Json) -> Iterator[tuple[Any, Any]]:
    view = body.get("view")
    try:
        about = json.loads(view["private_metadata"]) if isinstance(view, dict) else {}
    except (ValueError, LookupError, TypeError):
        return
    if isinstance(about, dict):
        yield from ((about.get("channel"), about.get(name)) for name in ("message", "thread"))
