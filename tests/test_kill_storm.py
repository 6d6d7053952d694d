"""Nothing lost, nothing twice, whatever dies: kill storms, rolling restarts, frozen workers, a Redis that is away."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.playground.kapa import Pace
from tests.rig import ADA, GENERAL, GRACE
from tests.storm.conductor import PACE, Storm, World
from tests.storm.fleet import Bridge
from tests.storm.judge import Asked, Emoji, Evidence, Said, Shown, judge
from tests.storm.plan import INGRESSES, WORKERS, Freeze, Mishap, Plan, RedisKill, Say, Stop, Switch, Vote, plan
from tests.waiting import eventually

SEED, SECONDS = 20, 20.0
SETTLE_SECONDS = 60.0
# Who had to wait for this to be over would not be back before the test is given up.
ENDLESS_LEASE = 3600
LONG_PAUSE = 300.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Give a world without a bridge in it."""
    async with World.around(tmp_path) as world:
        yield world


def has_logged(bridge: Bridge, *events: str) -> bool:
    return any(line["event"] in events for line in bridge.logged())


# The storm


async def test_a_kill_storm_loses_nothing_and_doubles_nothing(tmp_path: Path, tell: Callable[[str], None]) -> None:
    timetable = plan(SEED, SECONDS)
    async with World.around(tmp_path, kapa_requests_per_minute=timetable.kapa_per_minute) as world:
        verdict = await Storm(world, timetable).rage(SETTLE_SECONDS)
    tell(f"kill storm, seed {SEED}: {verdict.line()}")
    assert verdict.broken == []
    # The storm was one: much was promised, much was killed, and there was an order to keep.
    assert verdict.accepted > 40
    assert verdict.kills > 10
    assert verdict.pairs_in_order > 40
    assert verdict.votes > 10


# Rolling restarts


async def talk(world: World, stop: asyncio.Event) -> None:
    """Let people write in a few threads, without waiting for answers, until told to stop."""
    roots = [await world.slack.say(ADA, GENERAL, f"Thread {number} question 0") for number in range(4)]
    for turn in count(4):
        if stop.is_set():
            return
        await world.slack.say(GRACE, GENERAL, f"Thread {turn % 4} question {turn // 4}", thread=roots[turn % 4])
        # At most so many wait at once: a load that any machine can bear.
        await eventually(partial(has_more_answers, world, turn - 8), SETTLE_SECONDS)


@pytest.mark.parametrize("drain_seconds", [0, 20], ids=["work is handed back", "work is finished"])
async def test_a_rolling_restart_makes_nobody_wait_for_a_lease(world: World, drain_seconds: int) -> None:
    names = ["ingress-0", "ingress-1", "worker-0", "worker-1"]
    settings: dict[str, Any] = {
        "bridge_lease_seconds": ENDLESS_LEASE,
        "bridge_drain_seconds": drain_seconds,
        "kapa_requests_per_minute": 0,
    }
    for name in names:
        world.start(name, **settings)
    await world.ready(*names)
    over = asyncio.Event()
    talking = asyncio.create_task(talk(world, over))
    exits, stopped = [], []
    for name in names * 2:
        before = len(world.answered)
        await eventually(partial(has_more_answers, world, before), SETTLE_SECONDS)
        stopped.append(time())
        exits.append(await world.fleet.stopped(world.bridges[name]))
        world.start(name, **settings)
        await world.ready(*names)
    over.set()
    await talking
    await eventually(world.idle, SETTLE_SECONDS)
    evidence = await world.evidence(stopped=stopped, faults=world.faults())
    assert exits == [0] * len(exits)
    verdict = judge(evidence)
    assert verdict.broken == []
    assert verdict.accepted == verdict.answered_once > 15
    assert evidence.taken_over == []
    # Whoever has time to finish cuts no request off; whoever has none hands its work back, to be asked again.
    assert verdict.asked_again > 0 if drain_seconds == 0 else verdict.asked_again == 0


def has_more_answers(world: World, before: int) -> bool:
    return len(world.answered) > before


# A worker that is frozen past its lease


async def frozen(world: World) -> Bridge:
    """Freeze the worker that is at work, and let another take its work over."""
    bridge = world.bridges["worker-0"]
    world.fleet.signal(bridge, signal.SIGSTOP)
    world.start("worker-1")
    await eventually(partial(has_logged_of, world, "work_taken_over"))
    return bridge


def has_logged_of(world: World, event: str) -> bool:
    return has_logged(world.bridges["worker-1"], event)


async def woken(world: World, bridge: Bridge) -> None:
    """Wake a frozen worker when all is done, and wait until it has noticed; it must not change anything."""
    await eventually(lambda: bool(world.answered))
    await eventually(world.idle)
    before, shown = len(world.rig.called("chat.postMessage")), world.slack.messages(GENERAL)
    world.fleet.signal(bridge, signal.SIGCONT)
    await eventually(partial(has_logged, bridge, "lease_lost"))
    assert await world.fleet.stopped(bridge) == 0
    assert len(world.rig.called("chat.postMessage")) == before
    assert world.slack.messages(GENERAL) == shown
    verdict = judge(await world.evidence(faults=world.faults()))
    assert verdict.broken == []
    assert (verdict.accepted, verdict.answered_once) == (1, 1)


async def asked_of_kapa(world: World, **settings: Any) -> None:
    """Let somebody ask, and Kapa stand still before its first word."""
    world.start("ingress-0")
    world.start("worker-0", **settings)
    await world.ready("ingress-0", "worker-0")
    world.kapa.hold()
    await world.slack.say(ADA, GENERAL, "Thread 0 question 0")
    await world.kapa.wait_for(lambda: world.kapa.held, 20)


async def frozen_before_its_draft(world: World) -> Bridge:
    """Freeze a worker that has Kapa's first words to show, and let another take its work over."""
    bridge = world.bridges["worker-0"]
    world.fleet.signal(bridge, signal.SIGSTOP)
    world.kapa.pace = Pace(0, LONG_PAUSE)
    world.kapa.release()
    await eventually(lambda: LONG_PAUSE in world.naps)
    world.kapa.pace = PACE
    return await frozen(world)


async def test_a_worker_that_was_frozen_before_it_posts_a_draft_posts_nothing(world: World) -> None:
    await asked_of_kapa(world)
    await woken(world, await frozen_before_its_draft(world))
    assert len(world.kapa.asked) == 2


async def test_a_worker_that_was_frozen_before_it_posts_an_answer_posts_nothing(world: World) -> None:
    await asked_of_kapa(world, bridge_streaming="off")
    bridge = await frozen(world)
    await world.kapa.wait_for(lambda: world.kapa.held == 2, 20)
    world.kapa.release()
    await woken(world, bridge)
    assert len(world.kapa.asked) == 2


async def test_a_worker_that_was_frozen_with_kapa_s_answer_in_its_hands_forgets_it(world: World) -> None:
    await asked_of_kapa(world, bridge_streaming="off")
    bridge = world.bridges["worker-0"]
    world.fleet.signal(bridge, signal.SIGSTOP)
    world.kapa.release()
    # The whole answer waits at the frozen worker's door before anybody takes its work over.
    await world.kapa.wait_for(lambda: not world.kapa.in_flight, 20)
    first = world.kapa.asked[0].question_answer_id
    await frozen(world)
    await woken(world, bridge)
    [shown] = (await world.evidence()).shown
    assert shown.answer == world.kapa.asked[1].question_answer_id != first


async def test_a_worker_that_was_frozen_while_it_posts_leaves_its_message_to_the_next(world: World) -> None:
    await asked_of_kapa(world, bridge_streaming="off")
    world.slack.fault("chat.postMessage", "hang_after")
    world.kapa.release()
    await world.slack.wait_for(lambda: world.rig.called("chat.postMessage"), 20)
    bridge = await frozen(world)
    await woken(world, bridge)
    assert len(world.rig.called("chat.postMessage")) == 1
    # What Kapa said was remembered before it was shown.
    assert len(world.kapa.asked) == 1


# Redis is away as a question comes


@pytest.mark.parametrize(("breakage", "lost"), [("", 0), ("acknowledgement before the write", 1)])
async def test_an_acknowledgement_before_the_write_would_lose_a_question(
    world: World, breakage: str, lost: int
) -> None:
    world.start("worker-0")
    ingress = world.start("ingress-0", breakage=breakage)
    await world.ready("worker-0", "ingress-0")
    world.redis.kill()
    await world.slack.say(ADA, GENERAL, "Thread 0 question 0")
    await eventually(partial(has_logged, ingress, "event_not_taken_in", "event_lost"))
    await world.redis.start()
    await world.slack.delivered(SETTLE_SECONDS)
    await eventually(world.idle)
    verdict = judge(await world.evidence())
    assert (verdict.accepted, verdict.lost, verdict.answered_once) == (1, lost, 1 - lost)
    assert verdict.broken == ["lost: Thread 0 question 0"] * lost


# The timetable


def of(timetable: Plan, *kinds: type) -> list[Any]:
    return [event for event in timetable.events if isinstance(event, kinds)]


SEEDS = st.integers(0, 1_000_000)
LENGTHS = st.sampled_from([20.0, 60.0, 150.0, 600.0])


@given(SEEDS, LENGTHS)
def test_a_plan_follows_from_its_seed(seed: int, seconds: float) -> None:
    assert plan(seed, seconds) == plan(seed, seconds)
    assert plan(seed, seconds).events != plan(seed + 1, seconds).events


@given(SEEDS, LENGTHS)
def test_a_plan_is_bounded(seed: int, seconds: float) -> None:
    timetable = plan(seed, seconds)
    assert 40 <= len(of(timetable, Say)) <= 200 + 1.5 * seconds
    assert len(of(timetable, Vote)) <= 9 * len(of(timetable, Say))
    assert len(of(timetable, Stop, Freeze)) <= 2.5 * seconds
    assert 1 <= len(of(timetable, RedisKill)) <= 1 + seconds / 30
    assert len(of(timetable, Mishap)) <= 4 * seconds
    assert all(0 <= event.at <= seconds for event in of(timetable, Stop, Freeze, RedisKill, Mishap, Switch))


@given(SEEDS, LENGTHS)
def test_whoever_is_stopped_comes_back_before_it_is_stopped_again(seed: int, seconds: float) -> None:
    timetable = plan(seed, seconds)
    for slot in (*INGRESSES, *WORKERS):
        absences = [event for event in of(timetable, Stop, Freeze) if event.slot == slot]
        for one, next_one in pairwise(absences):
            assert one.at + (one.down if isinstance(one, Stop) else one.seconds) < next_one.at
    for one, next_one in pairwise(of(timetable, RedisKill)):
        assert one.at + one.down < next_one.at
    assert not [event for event in of(timetable, Freeze) if event.slot not in WORKERS or event.seconds <= 1]


@given(SEEDS, LENGTHS)
def test_a_thread_is_written_in_its_order(seed: int, seconds: float) -> None:
    numbers: dict[int, list[int]] = {}
    for event in of(plan(seed, seconds), Say):
        numbers.setdefault(event.thread, []).append(event.number)
    assert all(found == list(range(len(found))) for found in numbers.values())


# The judge

ROOT, NEXT = "100.000000", "110.000000"
TOLD = {("answer-0", ADA): "upvote"}


def calm() -> Evidence:
    """Give the evidence of two questions of a thread that were answered, and of a vote."""
    return Evidence(
        said=[Said(ROOT, ROOT, "first", 100.0, 100.1), Said(NEXT, ROOT, "second", 110.0, 110.1)],
        shown=[
            Shown("101.000000", ROOT, ROOT, 0, "answer-0", "first", True, 104.0),
            Shown("111.000000", ROOT, NEXT, 0, "answer-1", "second", True, 115.0),
        ],
        asked=[
            Asked("first", "kapa-thread", False, "answer-0", 100.2, 103.0),
            Asked("second", "kapa-thread", True, "answer-1", 110.2, 114.0),
        ],
        emoji=[Emoji("101.000000", ADA, "+1", True, "120.000000", True)],
        feedback=TOLD,
        remembered={"101.000000": "answer-0", "111.000000": "answer-1"},
        per_minute=2,
    )


def test_a_calm_world_keeps_its_promises() -> None:
    verdict = judge(calm())
    assert verdict.broken == []
    assert (verdict.accepted, verdict.answered_once, verdict.twice, verdict.lost) == (2, 2, 0, 0)
    assert (verdict.longest_wait, verdict.pairs_in_order, verdict.asked_again, verdict.votes) == (5.0, 1, 0, 1)


def changed(things: Iterable[Any], number: int, **fields: Any) -> list[Any]:
    return [replace(one, **fields) if at == number else one for at, one in enumerate(things)]


BROKEN: dict[str, tuple[Evidence, str]] = {
    "a reply that never came": (replace(calm(), shown=calm().shown[:1]), "lost: second"),
    "a draft that stayed one": (
        replace(calm(), shown=changed(calm().shown, 1, is_finished=False)),
        "lost: second",
    ),
    "two replies": (
        replace(calm(), shown=[*calm().shown, replace(calm().shown[1], ts="112.000000")]),
        "answered 2 times: second",
    ),
    "the wrong way round": (
        replace(calm(), shown=changed(calm().shown, 0, ts="112.000000"), emoji=[], feedback={}),
        "out of order: second before first",
    ),
    "another question's answer": (
        replace(calm(), shown=changed(calm().shown, 1, query="first")),
        "second got the answer to first",
    ),
    "another thread": (
        replace(calm(), shown=changed(calm().shown, 1, thread="90.000000")),
        "a message that belongs to nothing",
    ),
    "an answer that is remembered as another": (
        replace(calm(), remembered={"101.000000": "answer-1"}),
        "shown is answer-0, remembered answer-1",
    ),
    "a conversation that was torn": (
        replace(calm(), asked=changed(calm().asked, 1, kapa_thread="another")),
        "second was asked in another Kapa thread",
    ),
    "an answer that Kapa never gave": (replace(calm(), asked=calm().asked[:1]), "shows an answer that Kapa never gave"),
    "two requests at once": (
        replace(calm(), asked=changed(calm().asked, 0, ended=113.0)),
        "asked while first was being answered: second",
    ),
    "an answer asked for again": (
        replace(calm(), per_minute=3, asked=[*calm().asked, Asked("first", "kapa-thread", True, "x", 130.0, 131.0)]),
        "asked again though it was answered: first",
    ),
    "a vote that was lost": (replace(calm(), feedback={}), "Kapa was not told"),
    "a vote that nobody cast": (replace(calm(), emoji=[]), "Kapa was told upvote"),
    "a vote on another answer": (replace(calm(), feedback={("answer-1", ADA): "upvote"}), "Kapa was told upvote"),
    "a vote that was changed": (
        replace(calm(), emoji=[*calm().emoji, Emoji("101.000000", ADA, "-1", True, "121.000000", True)]),
        "Kapa was told upvote",
    ),
    "a budget that was overdrawn": (replace(calm(), per_minute=1), "Kapa was asked 2 times in a minute"),
    "a bridge that stumbled": (replace(calm(), faults=["journey_failed"]), "journey_failed"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_judge_sees(case: str) -> None:
    evidence, expected = BROKEN[case]
    assert any(expected in broken for broken in judge(evidence).broken), judge(evidence).broken


PARDONED: dict[str, Evidence] = {
    "what Slack was never told 200 for": replace(
        calm(), said=changed(calm().said, 1, acknowledged=None), shown=calm().shown[:1]
    ),
    "a reply in a thread that was never accepted": replace(
        calm(), said=changed(calm().said, 0, acknowledged=None), shown=[], emoji=[], feedback={}
    ),
    "an order that Slack itself turned round": replace(
        calm(),
        said=changed(calm().said, 0, acknowledged=110.5),
        shown=changed(calm().shown, 0, ts="112.000000"),
        emoji=[],
        feedback={},
        remembered={},
    ),
    "a request of a worker that was frozen": replace(
        calm(), asked=changed(calm().asked, 0, ended=113.0), taken_over=[(ROOT, 105.0)]
    ),
    "a request that a stop cut off": replace(calm(), asked=changed(calm().asked, 0, ended=110.3), stopped=[110.1]),
    "a request that stood behind the last look at a lease": replace(
        calm(),
        per_minute=3,
        asked=[*calm().asked, Asked("first", "kapa-thread", True, "x", 130.0, 131.0)],
        woken=[129.9],
    ),
    "a vote that was taken away": replace(
        calm(), emoji=[*calm().emoji, Emoji("101.000000", ADA, "+1", False, "121.000000", True)]
    ),
    "a vote that was taken away before it was counted": replace(
        calm(), emoji=[*calm().emoji, Emoji("101.000000", ADA, "+1", False, "121.000000", True)], feedback={}
    ),
    "a vote that Slack was never told 200 for": replace(
        calm(), emoji=changed(calm().emoji, 0, is_acknowledged=False), feedback={}
    ),
}


@pytest.mark.parametrize("case", PARDONED)
def test_the_judge_pardons(case: str) -> None:
    assert judge(PARDONED[case]).broken == []
