"""What happens in a storm, and when: a timetable that follows from a seed alone.

Pure. Carrying it out is `conductor`'s business, judging what came of it `judge`'s.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.rig import ADA, ALAN, GENERAL, GRACE, HELP, PRIVATE

PEOPLE, CHANNELS = (ADA, GRACE, ALAN), (GENERAL, HELP, PRIVATE)
INGRESSES = ("ingress-0", "ingress-1", "ingress-2")
WORKERS = ("worker-0", "worker-1", "worker-2")
OVER_HTTP = "ingress-2"
"""The ingress that hears over HTTP; the others keep a socket open."""

BUSY, PERIOD = 60.0, 120.0
"""People write for a minute, and then rest for one, so that a shared budget that binds is worked off again."""
THREADS_PER_SECOND = 0.38
LEAST_THREADS = 15
KAPA_FAULTS = ("500", "truncate", "429", "drop_midway", "drop_after")
SLACK_FAULTS = ("429", "500", "drop_after", "hang_after", "drop_before")
SLACK_METHODS = ("chat.postMessage", "chat.update", "conversations.replies")


@dataclass(frozen=True, slots=True)
class Say:
    """A person writes the message `number` of a thread; 0 begins it."""

    at: float
    thread: int
    number: int
    user: str
    channel: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A person puts an emoji on an answer, or takes it away again, once the answer is finished."""

    at: float
    thread: int
    number: int
    user: str
    emoji: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A process ends, by SIGKILL or SIGTERM, and is started again when it has been away for `down` seconds."""

    at: float
    slot: str
    by_force: bool
    down: float


@dataclass(frozen=True, slots=True)
class Freeze:
    """A process stands still (SIGSTOP) for so many seconds."""

    at: float
    slot: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RedisKill:
    """Redis is killed, and started again after `down` seconds."""

    at: float
    down: float


@dataclass(frozen=True, slots=True)
class Mishap:
    """Kapa (`target` empty) or a method of Slack's Web API goes wrong once."""

    at: float
    target: str
    kind: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Slack's events travel another way from now on: over HTTP or the sockets."""

    at: float
    to_http: bool


Event = Say | Vote | Stop | Freeze | RedisKill | Mishap | Switch


@dataclass(frozen=True, slots=True)
class Plan:
    """A timetable, in order of time. `kapa_per_minute` is the budget that all workers share."""

    seed: int
    seconds: float
    kapa_per_minute: int
    events: Sequence[Event]


def plan(seed: int, seconds: float) -> Plan:
    """Give the timetable of a storm of so many seconds; the same for the same seed."""
    chance = random.Random(seed)
    events = [
        *_talk(chance, seconds),
        *_stops_and_freezes(chance, seconds),
        *_redis_kills(chance, seconds),
        *_mishaps(chance, seconds),
        *_switches(chance, seconds),
    ]
    return Plan(seed, seconds, 120 if seconds > BUSY else 600, sorted(events, key=lambda event: event.at))


def busy_seconds(seconds: float) -> float:
    """Say how much of a storm people write in; each begins and ends with some calm."""
    whole, rest = divmod(seconds * 0.85, PERIOD)
    return whole * BUSY + min(rest, BUSY)


def _busy_time(chance: random.Random, seconds: float) -> float:
    whole, rest = divmod(chance.uniform(0, busy_seconds(seconds)), BUSY)
    return whole * PERIOD + rest


def _talk(chance: random.Random, seconds: float) -> Iterator[Event]:
    for thread in range(max(LEAST_THREADS, round(busy_seconds(seconds) * THREADS_PER_SECOND))):
        at, channel = _busy_time(chance, seconds) * 0.9, chance.choice(CHANNELS)
        for number in range(chance.randint(3, 6)):
            # Mostly without waiting for the answer: lines form.
            at += chance.choice((0.05, 0.15, 0.4, 1.5)) if number else 0.0
            yield Say(at, thread, number, chance.choice(PEOPLE), channel)
            yield from _votes(chance, at, thread, number)


def _votes(chance: random.Random, at: float, thread: int, number: int) -> Iterator[Vote]:
    for user in PEOPLE:
        if chance.random() < 0.3:
            # The same emoji again takes it away.
            for emoji in chance.choices(("+1", "-1"), k=chance.randint(1, 4)):
                at += chance.uniform(0.02, 0.6)
                yield Vote(at, thread, number, user, emoji)


def _stops_and_freezes(chance: random.Random, seconds: float) -> Iterator[Event]:
    free_from = dict.fromkeys((*INGRESSES, *WORKERS), 1.0)
    at = 1.5
    while at < seconds * 0.9:
        slots = WORKERS if chance.random() < 0.65 else INGRESSES
        free = [slot for slot in slots if free_from[slot] <= at]
        if free:
            slot = chance.choice(free)
            is_frozen = slot in WORKERS and chance.random() < 0.2
            away = chance.uniform(1.5, 2.5) if is_frozen else chance.choice((0.0, 0.1, 0.8))
            # A process that has just been started is left to do some work.
            free_from[slot] = at + away + 1.5
            yield Freeze(at, slot, away) if is_frozen else Stop(at, slot, chance.random() < 0.6, away)
        at += chance.uniform(0.4, 1.4 if seconds <= BUSY else 2.4)


def _redis_kills(chance: random.Random, seconds: float) -> Iterator[Event]:
    at = seconds * chance.uniform(0.4, 0.6) if seconds < BUSY else chance.uniform(10, 30)
    while at < seconds * 0.85:
        yield RedisKill(at, chance.choice((0.1, 0.8, 1.5)))
        at += chance.uniform(30, 60)


def _mishaps(chance: random.Random, seconds: float) -> Iterator[Event]:
    at = 1.0
    while at < seconds * 0.9:
        if chance.random() < 0.4:
            yield Mishap(at, "", chance.choice(KAPA_FAULTS))
        else:
            yield Mishap(at, chance.choice(SLACK_METHODS), chance.choice(SLACK_FAULTS))
        at += chance.uniform(0.3, 1.2)


def _switches(chance: random.Random, seconds: float) -> Iterator[Event]:
    times = [time * seconds / 20 for time in range(3, 17, 3)] if seconds < BUSY else list(range(15, int(seconds), 15))
    for start, end in pairwise([*times, seconds]):
        yield Switch(start, to_http=True)
        yield Switch(start + (end - start) * chance.uniform(0.2, 0.5), to_http=False)
