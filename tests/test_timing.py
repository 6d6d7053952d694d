"""What is counted of a question's time, on a clock that the tests turn."""

import pytest
from redis.asyncio import Redis

from bridge.rate_limit import RateLimit
from bridge.timing import Stopwatch
from tests.rig import ADA, BOTH_WAYS, GENERAL, Rig, count
from tests.waiting import Clock, eventually

QUESTION = {"kind": "question"}


class Heard:
    """Writes down what an observer hears."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def first_text(self, seconds: float) -> None:
        self.told.append(("first_text", seconds))

    def answer(self, result: str, seconds: float) -> None:
        self.told.append((f"answer {result}", seconds))

    def added(self, seconds: float) -> None:
        self.told.append(("added", seconds))

    def budget_wait(self, budget: str, seconds: float) -> None:
        self.told.append((f"budget {budget}", seconds))


def stopwatch(heard: Heard | None, hands: Clock, asked_at: float = 98.0) -> Stopwatch:
    return Stopwatch(heard, asked_at, clock=hands, monotonic=hands)


def test_what_the_bridge_adds_leaves_out_the_waiting() -> None:
    heard, hands = Heard(), Clock(100.0)
    watch = stopwatch(heard, hands)
    hands.now += 1
    with watch.waiting():
        hands.now += 10
    hands.now += 2
    watch.text_is_sent()
    hands.now += 4
    watch.text_is_shown()
    watch.finished("answered")
    assert heard.told == [("added", 3), ("first_text", 19), ("answer answered", 19)]


def test_a_draft_that_is_sent_while_more_is_waited_for_leaves_that_out() -> None:
    heard, hands = Heard(), Clock(100.0)
    watch = stopwatch(heard, hands)
    watch.pause()
    hands.now += 5
    watch.resume()
    hands.now += 1
    watch.pause()
    hands.now += 7
    # A pause in a pause is the same one.
    watch.pause()
    watch.text_is_sent()
    watch.resume()
    watch.resume()
    watch.text_is_sent()
    assert heard.told == [("added", 1), ("added", 1)]


def test_a_clock_that_is_behind_slack_s_gives_no_time_below_zero() -> None:
    heard, hands = Heard(), Clock(100.0)
    watch = stopwatch(heard, hands, asked_at=101.0)
    watch.text_is_shown()
    assert heard.told == [("first_text", 0)]


async def test_without_an_observer_nothing_is_told(redis: Redis) -> None:
    hands = Clock(100.0)
    watch = stopwatch(None, hands)
    watch.text_is_sent()
    watch.text_is_shown()
    watch.finished("answered")
    await watch.turn("kapa", RateLimit(redis, "free", limit=1), "C1:1")
    assert await redis.zcard("{bridge}:rate:free:granted") == 1


async def test_a_turn_is_told_only_where_it_was_waited_for(redis: Redis) -> None:
    heard, hands, places = Heard(), Clock(100.0), []
    watch = stopwatch(heard, hands)

    async def sleep(_: float) -> None:
        hands.now += 30
        # What is away is granted no more.
        await redis.delete("{bridge}:rate:busy:granted")

    budget = RateLimit(redis, "busy", limit=1, sleep=sleep)
    await watch.turn("kapa", budget, "C1:1", lambda wait: places.append(wait.place))
    assert heard.told == []
    await watch.turn("kapa", budget, "C1:2", lambda wait: places.append(wait.place))
    assert places == [1]
    watch.text_is_sent()
    assert heard.told == [("budget kapa", 30), ("added", 0)]


@BOTH_WAYS
@pytest.mark.parametrize("streaming", ["auto", "edit", "off"])
async def test_a_bridge_counts_how_long_its_answers_took(rig: Rig, http: bool, streaming: str) -> None:
    async with rig.bridge(http=http, bridge_streaming=streaming) as bridge:
        ts, _ = await rig.ask(ADA, GENERAL, "How are threads stored?")
        await eventually(lambda: count(bridge, "answer_seconds_count", result="answered") == 1)
        assert count(bridge, "first_text_seconds_count") == 1
        assert count(bridge, "added_seconds_count") == 1
        # The answer came in as an event as well, and was put nowhere.
        await rig.slack.delivered()
        assert count(bridge, "intake_seconds_count") == 1
        # Nothing but a question's own time is in what the bridge added.
        assert 0 < count(bridge, "added_seconds_sum") <= count(bridge, "first_text_seconds_sum") + 1
        await eventually(lambda: count(bridge, "work_running", **QUESTION) == 0)
        # An edit is answered anew, and says nothing of how fast a question is answered.
        await rig.slack.edit(ADA, GENERAL, ts, "How are answers stored?")
        await eventually(lambda: count(bridge, "work_total", kind="question", result="answered") == 2)
        assert count(bridge, "answer_seconds_count", result="answered") == 1
