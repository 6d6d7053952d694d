"""The playground's weather: what each switch does to a bridge, and that a question asked in it gets one answer."""

import asyncio
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from bridge import policy
from bridge.playground import weather as weathers
from bridge.playground.serving import Fault, Faults
from bridge.playground.slack import GENERAL, SimulatedSlack
from bridge.playground.slack_page import Page
from bridge.playground.weather import SLOW, UnknownWeatherError, Weather
from tests.rig import ADA, Rig, hurry, settled
from tests.waiting import Clock, eventually

QUESTION = "How are threads stored?"
KAPA = ["kapa_slow", "kapa_limited", "kapa_down", "kapa_cut_off", "kapa_uncertain"]
SLACK = ["slack_limited", "slack_drops", "duplicate"]


@pytest.fixture
def weather(rig: Rig) -> Weather:
    return Weather(rig.slack, rig.kapa)


def is_on(weather: Weather, name: str) -> bool:
    return bool(weather.report()[name]["on"])


async def only_answer(rig: Rig, redis: Redis, ts: str) -> dict[str, Any]:
    """Wait until all work is done, and give the one answer that came of it."""
    await rig.answer(GENERAL, ts, within=20)
    await settled(rig, redis)
    [answer] = rig.replies(GENERAL, ts)
    return answer


# Faults that last


def test_a_fault_that_lasts_comes_after_those_that_were_counted() -> None:
    faults = Faults()
    faults.always("a", Fault("500"))
    faults.add("a", Fault("429"), 2)
    seen = [faults.take("a") for _ in range(5)]
    assert [fault and fault.action for fault in seen] == ["429", "429", "500", "500", "500"]
    assert faults.take("b") is None
    faults.always("a", None)
    assert faults.take("a") is None
    faults.always("a", Fault("500"))
    faults.clear()
    assert faults.take("a") is None


def test_a_fault_with_pauses_spares_what_it_has_just_met() -> None:
    clock = Clock()
    faults = Faults(clock)
    faults.always("a", Fault("500"), apart=60)
    assert [faults.take("a", subject) is not None for subject in ("1", "1", "2", "1", "2")] == [
        True, False, True, False, False,
    ]  # fmt: skip
    clock.now += 60
    assert faults.take("a", "1") is not None
    for number in range(5_000):
        faults.take("a", str(number))
    assert faults.take("a", "1") is not None


# The switches


def test_the_switches_are_those_that_can_be_turned_here(rig: Rig) -> None:
    async def happening() -> None:
        return None

    whole = Weather(rig.slack, rig.kapa, {"kill_worker": happening, "redis_away": happening})
    assert set(whole.report()) == {*KAPA, *SLACK, "kill_worker", "redis_away"}
    kinds = {name for name, switch in whole.report().items() if switch["kind"] == "once"}
    assert kinds == {"kill_worker", "redis_away"}
    assert all(switch["label"] and switch["hint"].endswith(".") for switch in whole.report().values())
    assert set(Weather(rig.slack).report()) == set(SLACK)
    with pytest.raises(UnknownWeatherError):
        Weather(rig.slack).turn("kapa_down", on=True)


@pytest.mark.parametrize("name", ["kapa_limited", "kapa_down", "kapa_cut_off"])
async def test_a_question_in_kapas_bad_weather_is_answered_after_it(
    rig: Rig, redis: Redis, weather: Weather, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(policy, "QUESTION_WAITS", (0.02,) * 500)
    monkeypatch.setattr(weathers, "KAPA_PAUSE", "1")
    async with rig.bridge():
        weather.turn(name, on=True)
        ts = await rig.slack.say(ADA, GENERAL, QUESTION)
        outcome = {"kapa_limited": "429", "kapa_down": "500", "kapa_cut_off": "truncate"}[name]
        await rig.kapa.wait_for(lambda: [call for call in rig.kapa.calls if call.outcome == outcome], 10)
        weather.turn(name, on=False)
        answer = await only_answer(rig, redis, ts)
    assert "Redis" in str(answer)


async def test_kapa_can_be_uncertain(rig: Rig, redis: Redis, weather: Weather) -> None:
    async with rig.bridge():
        _, sure = await rig.ask(ADA, GENERAL, QUESTION)
        weather.turn("kapa_uncertain", on=True)
        ts = await rig.slack.say(ADA, GENERAL, QUESTION)
        unsure = await only_answer(rig, redis, ts)
    assert "not certain" not in str(sure)
    assert len(str(unsure["blocks"])) > len(str(sure["blocks"]))
    assert [call.outcome for call in rig.kapa.calls] == ["ok", "uncertain"]


def test_kapa_can_be_slow_and_gets_its_own_pace_back(rig: Rig, weather: Weather) -> None:
    fair = rig.kapa.pace
    weather.turn("kapa_slow", on=True)
    assert rig.kapa.pace == SLOW
    weather.turn("kapa_slow", on=False)
    assert rig.kapa.pace == fair


@pytest.mark.parametrize("streaming", ["native", "edit", "off"])
async def test_while_slack_drops_connections_each_question_has_one_answer(
    rig: Rig, redis: Redis, weather: Weather, monkeypatch: pytest.MonkeyPatch, streaming: str
) -> None:
    hurry(monkeypatch)
    weather.turn("slack_drops", on=True)
    async with rig.bridge(bridge_streaming=streaming):
        for _ in range(2):
            ts = await rig.slack.say(ADA, GENERAL, QUESTION)
            assert "Redis" in str(await only_answer(rig, redis, ts))
    assert [call for call in rig.slack.calls if call.broken == "drop_after"]


async def test_while_slack_is_limited_nothing_is_posted_and_afterwards_once(
    rig: Rig, redis: Redis, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weathers, "SLACK_PAUSE", "1")
    async with rig.bridge():
        weather.turn("slack_limited", on=True)
        ts = await rig.slack.say(ADA, GENERAL, QUESTION)
        await rig.slack.wait_for(rig.slack.rate_limited.total, 10)
        assert rig.replies(GENERAL, ts) == []
        weather.turn("slack_limited", on=False)
        await only_answer(rig, redis, ts)
    assert len(rig.kapa.asked) == 1


async def test_events_that_come_twice_are_answered_once(rig: Rig, redis: Redis, weather: Weather) -> None:
    async with rig.bridge():
        weather.turn("duplicate", on=True)
        ts = await rig.slack.say(ADA, GENERAL, QUESTION)
        answer = await only_answer(rig, redis, ts)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")
        await settled(rig, redis)
    ids = [delivery.event_id for delivery in rig.slack.deliveries]
    assert all(ids.count(event_id) == 2 for event_id in ids)
    assert len(rig.kapa.asked) == 1
    assert len(rig.kapa.feedback_log) == 1


async def test_of_two_troubles_at_one_place_the_graver_shows(rig: Rig, weather: Weather) -> None:
    for name in ("kapa_uncertain", "kapa_limited", "kapa_down"):
        weather.turn(name, on=True)
    url = f"{rig.kapa.api_url}/query/v1/projects/{rig.kapa.project_id}/chat/"
    statuses = []
    async with aiohttp.ClientSession(headers={"X-API-KEY": rig.kapa.api_key}) as session:
        for name in ("kapa_down", "kapa_limited", "kapa_uncertain"):
            async with session.post(url, json={"query": QUESTION}) as reply:
                statuses.append((reply.status, reply.headers.get("Retry-After")))
            weather.turn(name, on=False)
    assert statuses == [(500, None), (429, "5"), (200, None)]


# What happens once


async def test_what_happens_once_is_on_while_it_lasts_and_happens_once_at_a_time(rig: Rig) -> None:
    go, begun = asyncio.Event(), []

    async def happening() -> None:
        begun.append(True)
        await go.wait()

    weather = Weather(rig.slack, rig.kapa, {"kill_worker": happening})
    changes = rig.slack.subscribe_changes()
    weather.turn("kill_worker", on=True)
    assert (await anext(changes))["weather"]["kill_worker"]["on"]
    weather.turn("kill_worker", on=True)
    weather.turn("kill_worker", on=False)
    assert is_on(weather, "kill_worker")
    go.set()
    assert not (await anext(changes))["weather"]["kill_worker"]["on"]
    assert begun == [True]


async def test_what_cannot_happen_is_over_at_once(rig: Rig) -> None:
    async def happening() -> None:
        raise ProcessLookupError

    weather = Weather(rig.slack, rig.kapa, {"redis_away": happening})
    changes = rig.slack.subscribe_changes()
    weather.turn("redis_away", on=True)
    assert is_on(weather, "redis_away")
    seen = [(await anext(changes))["weather"]["redis_away"]["on"] for _ in range(2)]
    assert seen == [True, False]


async def test_at_the_end_the_sky_is_clear(rig: Rig) -> None:
    begun, undone = [], []

    async def happening() -> None:
        begun.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            undone.append(True)

    weather = Weather(rig.slack, rig.kapa, {"redis_away": happening})
    for name in weather.report():
        weather.turn(name, on=True)
    assert is_on(weather, "redis_away")
    await eventually(lambda: bool(begun))
    await weather.close()
    assert undone == [True]
    assert not any(switch["on"] for switch in weather.report().values())
    assert not rig.slack.is_doubling


# The page


async def test_the_page_turns_the_weather_and_tells_everyone() -> None:
    slack = SimulatedSlack()
    async with (
        slack.serve(),
        Page(slack).serve() as page,
        aiohttp.ClientSession(page.url) as session,
        session.get("/changes") as changes,
    ):
        await changes.content.readuntil(b"\n\n")
        async with session.post("/weather", json={"name": "duplicate", "on": True}) as reply:
            assert (await reply.json())["weather"]["duplicate"]["on"] is True
        told = await asyncio.wait_for(changes.content.readuntil(b"\n\n"), 5)
        assert b'"type": "weather"' in told
        async with session.get("/state") as reply:
            state = await reply.json()
        assert state["weather"]["duplicate"]["on"] is True
        assert state["kapa"] == "simulated"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"name": "sun", "on": True}, "unknown weather"),
        ({"name": "kill_worker", "on": True}, "unknown weather"),
        ({"on": True}, "unknown weather"),
        ({"name": "duplicate", "on": 1}, "invalid_arguments"),
        ({"name": "duplicate"}, "invalid_arguments"),
    ],
)
async def test_the_page_refuses_weather_that_there_is_not(body: dict[str, Any], error: str) -> None:
    slack = SimulatedSlack()
    async with (
        slack.serve(),
        Page(slack).serve() as page,
        aiohttp.ClientSession(page.url) as session,
        session.post("/weather", json=body) as reply,
    ):
        assert (reply.status, await reply.json()) == (400, {"error": error})
