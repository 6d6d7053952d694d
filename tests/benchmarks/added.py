"""What the bridge adds to the time that Kapa takes, one question at a time: before the first text, and after its first.

Times are those of the simulated worlds, which see every event leave and every call arrive.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bridge.playground.kapa import Asked, Pace
from bridge.playground.slack import Call
from tests.benchmarks import harness, table
from tests.benchmarks.conversations import QUESTION, Conversations
from tests.benchmarks.harness import CHANNELS, Plan
from tests.benchmarks.table import Row, quantile
from tests.rig import Rig

BARE, BOT = "a Redis round trip and a Slack call", "in-memory bot"
BARES = {
    "redis": "a bare Redis round trip, p50",
    "write": "a bare Redis write, on disk before the reply, p50",
    "slack": "a bare Slack call, p50",
}
QUESTIONS, SLOW_QUESTIONS, GROWING_QUESTIONS = 100, 20, 10
WARMING = 10
SLOW_SECONDS = 0.1
# Who asks reads for a moment: what is done after an answer is no part of the next.
READING_SECONDS = 0.02
# Slower than any bridge, so that it grows; quicker than the real Kapa, whose first text takes some seconds.
GROWING = Pace(first_text=0.3, between_pieces=0.03)
ANSWER_SECONDS = 20.0
STREAMINGS = ("off", "auto")


@dataclass(slots=True)
class Times:
    """Seconds of each question: `added` before the first text, and from Kapa's first piece until it is `visible`."""

    added: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    methods: set[str] = field(default_factory=set)

    def add(self, sent: float, kapa: tuple[float, Asked], call: Call) -> None:
        """Take note of one question by when its event was sent, when Kapa was asked, and the first call with text."""
        at, asked = kapa
        arrived = call.at - call.seconds
        is_over = asked.ended is not None and asked.ended <= arrived
        since = asked.ended if is_over else asked.first_text
        self.added.append(at - sent + max(0.0, arrived - (since or at)))
        self.visible.append(call.at - (asked.first_text or asked.ended or at))
        self.methods.add(call.method)


async def bare(rig: Rig) -> dict[str, float]:
    """Give the milliseconds of the least that is needed: `redis`, `write` and `slack`."""
    environment = rig.environment() | {"CHANNEL": CHANNELS[0]}
    printed = await harness.output(("-m", "tests.benchmarks.bare"), environment, rig.folder)
    return {name: 1000 * seconds for name, seconds in json.loads(printed).items()}


async def ask(rig: Rig, people: Conversations, count: int) -> Times:
    """Ask so many questions, each in a thread of its own, and each when the one before is answered."""
    times = Times()
    for number in range(count):
        before = rig.slack.calls[-1].number if rig.slack.calls else 0
        async with asyncio.timeout(ANSWER_SECONDS):
            thread, _ = await people.ask(CHANNELS[number % len(CHANNELS)], f"{QUESTION} {number}")
        sent = next(one.at for one in reversed(rig.slack.attempts) if one.body["event"].get("ts") == thread)
        request = rig.kapa.calls[-1]
        assert request.asked is not None
        call = next(call for call in rig.slack.calls if call.number > before and _has_text(call))
        times.add(sent, (request.at, request.asked), call)
        await asyncio.sleep(READING_SECONDS)
    return times


def _has_text(call: Call) -> bool:
    return call.method.startswith("chat.") and any(call.args.get(name) for name in ("text", "markdown_text", "blocks"))


async def _of_a_subject(plan: Plan, streaming: str | None) -> tuple[Times, Times]:
    """Time the bridge, or without a way to stream the bot: with an instant Slack, and with a slow one."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(harness.worlds())
        subject = harness.bridge(rig, bridge_streaming=streaming) if streaming else harness.floor(rig, "bot")
        await stack.enter_async_context(subject)
        people = await stack.enter_async_context(Conversations(rig).listening())
        await ask(rig, people, WARMING)
        quick = await ask(rig, people, plan.load(QUESTIONS))
        rig.slack.latency = SLOW_SECONDS
        return quick, await ask(rig, people, plan.load(SLOW_QUESTIONS))


async def added(plan: Plan) -> AsyncIterator[Row]:
    """Time what is added before the first text, with an instant Kapa."""
    bares: list[dict[str, float]] = []
    bots: list[tuple[Times, Times]] = []
    bridges: dict[str, list[tuple[Times, Times]]] = {streaming: [] for streaming in STREAMINGS}
    for _ in range(plan.rounds):
        async with harness.worlds() as rig:
            bares.append(await bare(rig))
        bots.append(await _of_a_subject(plan, None))
        for streaming, found in bridges.items():
            found.append(await _of_a_subject(plan, streaming))
    for name, what in BARES.items():
        yield table.alone(what, "ms", [one[name] for one in bares])
    least = [one["redis"] + one["slack"] for one in bares]
    of_bots = {share: [_ms(quick, share) for quick, _ in bots] for share in (0.5, 0.95)}
    for streaming, found in bridges.items():
        what = f"time added to an answer, streaming {streaming}"
        p50, p95 = ([_ms(quick, share) for quick, _ in found] for share in (0.5, 0.95))
        slow = [_ms(times, 0.5) for _, times in found]
        yield table.compared(f"{what}, p50", "ms", p50, BARE, least, table.at_most(5, "ms"))
        yield table.compared(f"{what}, p95", "ms", p95, BARE, least, table.at_most(15, "ms"))
        yield table.compared(f"{what}, p50, beside a bot", "ms", p50, BOT, of_bots[0.5], table.at_most_times(1))
        yield table.compared(f"{what}, p95, beside a bot", "ms", p95, BOT, of_bots[0.95], table.at_most_times(1))
        yield table.compared(f"{what}, p50, Slack calls take 100 ms", "ms", slow, "instant Slack", p50, _AS_IT_WAS)


_AS_IT_WAS = table.Aim("as with an instant Slack (≤ 1.2 x)", lambda row: (row.ratio or 0) / 1.2)


def _ms(times: Times, share: float) -> float:
    return 1000 * quantile(times.added, share)


async def _growing(plan: Plan, streaming: str) -> list[float]:
    """Give the milliseconds until the first text of each growing answer is visible."""
    async with (
        harness.worlds(pace=GROWING) as rig,
        harness.bridge(rig, bridge_streaming=streaming),
        Conversations(rig).listening() as people,
    ):
        # No more than the bridge lets grow in a minute.
        times = await ask(rig, people, 1 + plan.load(GROWING_QUESTIONS))
    expected = {"chat.startStream" if streaming == "native" else "chat.postMessage"}
    if times.methods != expected:
        raise RuntimeError(f"answers were first shown by {times.methods}")
    return [1000 * seconds for seconds in times.visible[1:]]


async def first_text(plan: Plan) -> AsyncIterator[Row]:
    """Time from Kapa's first piece to the first text that people see."""
    bares: list[float] = []
    found: dict[str, list[list[float]]] = {"native": [], "edit": []}
    for _ in range(plan.rounds):
        async with harness.worlds() as rig:
            bares.append((await bare(rig))["slack"])
        for streaming, times in found.items():
            times.append(await _growing(plan, streaming))
    for streaming, times in found.items():
        p50 = [quantile(one, 0.5) for one in times]
        what = f"Kapa's first piece to the first text in Slack, {streaming}, p50"
        yield table.compared(what, "ms", p50, "a Slack call", bares, table.within(1.2, 50, "ms"))
