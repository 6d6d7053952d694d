"""Kapa's circuit breakers on a real Redis, and what they do for whole bridges while Kapa is out.

What passes with time is taken out of Redis instead of being waited for.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from bridge import app, circuit_breaker, redis_client
from bridge.circuit_breaker import (
    COOL_DOWN_SECONDS,
    LONGEST_COOL_DOWN_SECONDS,
    MOST_FAILURES,
    OPEN_SECONDS,
    PROBE_WAIT_SECONDS,
    CircuitBreaker,
    CircuitOpenError,
    State,
    is_outage,
)
from bridge.dead_letters import DeadLetters
from bridge.inbox import TAG
from bridge.kapa.wire import KapaError, KapaMisconfigured, KapaRefused, KapaThreadUnknown, KapaUnavailable
from bridge.messages import Messages
from bridge.rate_limit import RateLimit
from bridge.settings import Role
from bridge.work import end
from tests.rig import ADA, GENERAL, GRACE, HELP, Rig, hurry, markdown, settled
from tests.waiting import eventually

SAYS = Messages()
LATER = f"{TAG}:question:later"
OUT, BUSY = KapaUnavailable("Bad gateway", status=502), KapaUnavailable("Throttled", status=429, is_rate_limit=True)


@pytest.fixture
def breaker(redis: Redis) -> CircuitBreaker:
    return CircuitBreaker(redis, "chat")


def key(part: str, name: str = "chat") -> str:
    return f"{TAG}:circuit:{name}:{part}"


async def is_admitted(breaker: CircuitBreaker, who: str) -> bool:
    try:
        await breaker.admit(who)
    except CircuitOpenError:
        return False
    return True


async def step(breaker: CircuitBreaker, redis: Redis, what: str) -> None:
    """Let one thing happen: a request of somebody's, its end, or the passing of time."""
    match what.split():
        case ["fails", who]:
            await breaker.failed(who)
        case ["works"]:
            await breaker.succeeded()
        case [who, "may"]:
            assert await is_admitted(breaker, who)
        case [who, "may", "not"]:
            assert not await is_admitted(breaker, who)
        case ["over:", part]:
            assert await redis.delete(key(part)) == 1
        case _:
            raise AssertionError(what)


NEARLY = ["fails a"] * (MOST_FAILURES - 1)
OPENED = ["fails a"] * MOST_FAILURES
PROBING = [*OPENED, "over: cooling", "b may"]

WAYS: dict[str, tuple[list[str], State]] = {
    "nothing happened": (["a may"], State.CLOSED),
    "too few failures": ([*NEARLY, "a may"], State.CLOSED),
    "as many as it takes": ([*OPENED, "a may not", "b may not"], State.OPEN),
    "a success in between": ([*NEARLY, "works", *NEARLY, "b may"], State.CLOSED),
    "failures far apart": ([*NEARLY, "over: failures", *NEARLY, "b may"], State.CLOSED),
    "a success from before": ([*OPENED, "works", "b may", "c may"], State.CLOSED),
    "closed means from the start": ([*OPENED, "works", *NEARLY, "b may"], State.CLOSED),
    "the cool-down is over": ([*OPENED, "over: cooling"], State.OPEN),
    "one may probe": ([*PROBING, "c may not", "a may not"], State.PROBING),
    "the probe may come again": ([*PROBING, "b may"], State.PROBING),
    "the probe works": ([*PROBING, "works", "c may", "d may"], State.CLOSED),
    "the probe fails": ([*PROBING, "fails b", "b may not", "c may not"], State.OPEN),
    "another one fails late": ([*PROBING, "fails a", "c may not"], State.PROBING),
    "somebody fails late in the cool-down": ([*OPENED, "fails c", "over: cooling", "c may"], State.PROBING),
    "the probe dies": ([*PROBING, "over: probe"], State.OPEN),
    "the probe that died is replaced": ([*PROBING, "over: probe", "c may", "b may not"], State.PROBING),
    "the one that was replaced fails": ([*PROBING, "over: probe", "c may", "fails b", "c may"], State.PROBING),
    "its failure is forgotten": ([*PROBING, "fails b", "over: open", "a may"], State.CLOSED),
    "a second probe": ([*PROBING, "fails b", "over: cooling", "a may", "b may not"], State.PROBING),
}


@pytest.mark.parametrize("way", WAYS)
async def test_how_a_circuit_opens_and_closes(breaker: CircuitBreaker, redis: Redis, way: str) -> None:
    steps, expected = WAYS[way]
    for what in steps:
        await step(breaker, redis, what)
    assert await breaker.state() is expected
    for name in await redis.keys():
        assert 0 < await redis.pttl(name) <= OPEN_SECONDS * 1000, name


async def test_a_closed_circuit_leaves_nothing_behind(breaker: CircuitBreaker, redis: Redis) -> None:
    for what in [*PROBING, "fails b", "over: cooling", "b may", "works"]:
        await step(breaker, redis, what)
    assert await redis.keys() == []


async def test_each_probe_that_fails_doubles_the_cool_down_up_to_a_limit(breaker: CircuitBreaker, redis: Redis) -> None:
    for what in OPENED:
        await step(breaker, redis, what)
    expected = COOL_DOWN_SECONDS
    for _ in range(6):
        assert expected / 2 < await redis.pttl(key("cooling")) / 1000 <= expected
        with pytest.raises(CircuitOpenError) as raised:
            await breaker.admit("b")
        assert expected / 2 < (raised.value.retry_after or 0) <= expected
        for what in ("fails a", "over: cooling", "b may", "fails c", "fails b"):
            await step(breaker, redis, what)
        expected = min(2 * expected, LONGEST_COOL_DOWN_SECONDS)
    assert expected == LONGEST_COOL_DOWN_SECONDS
    await breaker.succeeded()
    for what in OPENED:
        await step(breaker, redis, what)
    assert await redis.pttl(key("cooling")) <= COOL_DOWN_SECONDS * 1000


async def test_who_meets_a_probe_waits_for_its_end(breaker: CircuitBreaker, redis: Redis) -> None:
    for what in PROBING:
        await step(breaker, redis, what)
    for lives_ms, most in ((60_000, PROBE_WAIT_SECONDS), (3000, 3)):
        await redis.pexpire(key("probe"), lives_ms)
        with pytest.raises(CircuitOpenError) as raised:
            await breaker.admit("c")
        assert most / 2 < (raised.value.retry_after or 0) <= most


async def test_of_many_callers_one_probes(breaker: CircuitBreaker, redis: Redis, redis_url: str) -> None:
    async with redis_client.connect(redis_url) as client:
        breakers = [breaker, CircuitBreaker(client, "chat")]
        for what in OPENED:
            await step(breaker, redis, what)
        for _ in range(5):
            await redis.delete(key("cooling"), key("probe"))
            asked = [is_admitted(breakers[n % 2], f"q{n}") for n in range(32)]
            assert sum(await asyncio.gather(*asked)) == 1


async def test_a_probe_that_dies_is_replaced(
    breaker: CircuitBreaker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "PROBE_SECONDS", 0.05)
    for what in PROBING:
        await step(breaker, redis, what)
    await eventually(lambda: is_admitted(breaker, "c"))


async def test_circuits_of_other_names_have_nothing_to_do_with_each_other(
    breaker: CircuitBreaker, redis: Redis
) -> None:
    for what in OPENED:
        await step(breaker, redis, what)
    other = CircuitBreaker(redis, "feedback")
    await other.admit("a")
    await other.succeeded()
    assert (await breaker.state(), await other.state()) == (State.OPEN, State.CLOSED)


async def test_the_operator_hears_of_it_once(breaker: CircuitBreaker, redis: Redis) -> None:
    with capture_logs() as logs:
        for what in [
            *OPENED,
            "fails c",
            "over: cooling",
            "b may",
            "fails b",
            "over: cooling",
            "b may",
            "works",
            "works",
        ]:
            await step(breaker, redis, what)
    heard = [(entry["event"], entry["log_level"], entry["circuit"]) for entry in logs]
    assert heard == [
        ("circuit_opened", "error", "chat"),
        ("probe_failed", "info", "chat"),
        ("circuit_closed", "info", "chat"),
    ]


# What counts as a failure


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OUT, True),
        (KapaUnavailable("no connection"), True),
        (KapaUnavailable("the stream broke", partial="some"), True),
        (BUSY, False),
        (KapaRefused("too long", status=413), False),
        (KapaMisconfigured("wrong key", status=401), False),
        (KapaThreadUnknown("gone", status=404), False),
    ],
)
async def test_only_an_outage_is_a_failure(breaker: CircuitBreaker, error: KapaError, expected: bool) -> None:
    assert is_outage(error) is expected
    await breaker.failed("a")
    for _ in range(MOST_FAILURES):
        with pytest.raises(type(error)):
            async with breaker.watch("a"):
                raise error
    assert await breaker.state() is (State.OPEN if expected else State.CLOSED)


@pytest.mark.parametrize("error", [ValueError(), RedisError(), asyncio.CancelledError()])
async def test_what_kapa_did_not_end_says_nothing(breaker: CircuitBreaker, redis: Redis, error: BaseException) -> None:
    for what in PROBING:
        await step(breaker, redis, what)
    with pytest.raises(type(error)):
        async with breaker.watch("b"):
            raise error
    assert await breaker.state() is State.PROBING


async def test_a_request_that_works_closes_the_circuit(breaker: CircuitBreaker, redis: Redis) -> None:
    for what in PROBING:
        await step(breaker, redis, what)
    async with breaker.watch("b"):
        assert await breaker.state() is State.PROBING
    assert await breaker.state() is State.CLOSED


async def test_without_redis_nobody_asks_and_what_came_of_a_request_counts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        async with redis_client.connect(f"redis://127.0.0.1:{taken.getsockname()[1]}/0") as nobody:
            breaker = CircuitBreaker(nobody, "chat")
            with pytest.raises(RedisError):
                await breaker.admit("a")
            with pytest.raises(RedisError):
                await breaker.state()
            with capture_logs() as logs:
                with pytest.raises(KapaUnavailable):
                    async with breaker.watch("a"):
                        raise OUT
                async with breaker.watch("a"):
                    answer = "here"
    assert answer == "here"
    assert [entry["event"] for entry in logs] == ["circuit_not_told"] * 2


# Whole bridges


@pytest.fixture
def long_cool_downs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries go without the waits that people need, and cool-downs end only when a test ends them."""
    hurry(monkeypatch)
    for name in ("COOL_DOWN_SECONDS", "LONGEST_COOL_DOWN_SECONDS"):
        monkeypatch.setattr(circuit_breaker, name, 1800.0)
    monkeypatch.setattr(app, "EDITS_PER_MINUTE", 1000)


@asynccontextmanager
async def time_passes(redis: Redis) -> AsyncIterator[None]:
    """Let whatever waits have its turn at once, until the end of the block."""

    async def pass_on() -> None:
        while True:
            for line in await redis.zrange(LATER, 0, -1):
                await redis.zadd(LATER, {str(line): 0}, xx=True)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(pass_on())
    try:
        yield
    finally:
        await end(task)


@pytest.mark.usefixtures("long_cool_downs")
async def test_during_an_outage_kapa_is_spared_and_everyone_is_told(
    redis_url: str, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at_once, people = 4, 50
    settings: dict[str, Any] = {
        "bridge_worker_concurrency": at_once,
        "kapa_requests_per_minute": 0,
        "bridge_streaming": "off",
    }
    async with Rig.serving(redis_url, tmp_path_factory.mktemp("rig"), limits=None) as rig:
        async with rig.bridge(**settings), rig.bridge(Role.WORKER, **settings):
            rig.kapa.fault("500", 10_000)
            async with time_passes(redis):
                asked = [await rig.slack.say(ADA, GENERAL, f"How {number}?") for number in range(people)]
                for ts in asked:
                    [sorry] = await rig.answer(GENERAL, ts, within=30)
                    assert markdown(sorry) == SAYS.unavailable
                await settled(rig, redis)
            # Those that were under way on both workers when the circuit opened, and the ones that opened it.
            assert MOST_FAILURES <= rig.kapa.refused[500] <= MOST_FAILURES + 2 * at_once
            letters = DeadLetters(redis)
            dead = await letters.read()
            assert len(dead) == people
            assert {letter.reason.partition(":")[0] for letter in dead} == {"kapa"}
            rig.kapa.clear_faults()
            await redis.delete(key("cooling"))
            _, answer = await rig.ask(GRACE, HELP, "How are threads stored?")
            assert "stored in Redis" in markdown(answer)
            assert await CircuitBreaker(redis, "chat").state() is State.CLOSED
            await letters.retry([letter.id for letter in dead])
            await settled(rig, redis)
            assert await letters.read() == []
            assert all(markdown(rig.replies(GENERAL, ts)[0]) != SAYS.unavailable for ts in asked)
        assert len(rig.kapa.asked) == people + 1


async def opened(redis: Redis, name: str = "chat") -> CircuitBreaker:
    breaker = CircuitBreaker(redis, name)
    for _ in range(MOST_FAILURES):
        await breaker.failed("somebody")
    assert await breaker.state() is State.OPEN
    return breaker


async def put_off(redis: Redis, count: int) -> None:
    """Wait until so many questions have been tried and wait."""

    async def are_waiting() -> bool:
        return int(await redis.zcard(LATER)) == count

    await eventually(are_waiting)


@pytest.mark.usefixtures("long_cool_downs")
async def test_a_question_that_meets_an_open_circuit_waits_for_its_turn_and_is_answered(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = await opened(redis)
    async with rig.bridge():
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        # However long the circuit is open, that alone is no reason to give up.
        await put_off(redis, 1)
        assert await redis.zcount(LATER, (await redis.time())[0] * 1000 + 60_000, "+inf") == 1
        assert rig.replies(GENERAL, ts) == []
        await redis.delete(key("cooling"))
        async with time_passes(redis):
            [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in markdown(answer)
        assert await breaker.state() is State.CLOSED
    assert len(rig.kapa.asked) == 1
    assert await DeadLetters(redis).read() == []


@pytest.mark.usefixtures("long_cool_downs")
async def test_an_open_circuit_costs_no_budget(rig: Rig, redis: Redis) -> None:
    await opened(redis)
    async with rig.bridge(kapa_requests_per_minute=1):
        await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await put_off(redis, 1)
    assert await RateLimit(redis, "kapa", limit=1).try_acquire("another")


@pytest.mark.usefixtures("long_cool_downs")
async def test_who_waited_for_the_budget_asks_nothing_of_a_kapa_that_went_out_meanwhile(rig: Rig, redis: Redis) -> None:
    async with rig.bridge(kapa_requests_per_minute=1):
        rig.kapa.hold()
        await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        await rig.kapa.wait_for(lambda: rig.kapa.held)
        await rig.slack.say(ADA, HELP, "How are threads stored?")

        async def is_in_line() -> bool:
            return int(await redis.zcard(f"{TAG}:rate:kapa:waiting")) == 1

        await eventually(is_in_line)
        await opened(redis)
        await redis.delete(f"{TAG}:rate:kapa:granted")
        await put_off(redis, 1)
        assert len(rig.kapa.asked) == 1
        rig.kapa.release()


@pytest.mark.usefixtures("long_cool_downs")
async def test_votes_have_a_circuit_of_their_own_and_wait_for_kapa(rig: Rig, redis: Redis) -> None:
    votes_later = f"{TAG}:vote:later"
    async with rig.bridge():
        await opened(redis, "feedback")
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        # A vote on an answer that is not finished would wait too.
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")

        async def is_put_off() -> bool:
            return int(await redis.zcard(votes_later)) == 1

        await eventually(is_put_off)
        assert list(rig.kapa.feedback_log) == []
        await redis.delete(key("cooling", "feedback"))
        for line in await redis.zrange(votes_later, 0, -1):
            await redis.zadd(votes_later, {str(line): 0})
        await settled(rig, redis)
        assert [body["reaction"] for body in rig.kapa.feedback_log] == ["upvote"]
        assert await CircuitBreaker(redis, "feedback").state() is State.CLOSED


@pytest.mark.usefixtures("long_cool_downs")
async def test_votes_that_fail_open_their_circuit_and_spare_kapa(rig: Rig, redis: Redis) -> None:
    async with rig.bridge():
        _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
        rig.kapa.fault("500", 10_000, endpoint="feedback")
        for emoji in ("+1", "-1"):
            await rig.slack.react(ADA, GENERAL, answer["ts"], emoji)

        async def is_open() -> bool:
            return await CircuitBreaker(redis, "feedback").state() is State.OPEN

        await eventually(is_open)
        assert rig.kapa.refused[500] == MOST_FAILURES
        _, second = await rig.ask(ADA, HELP, "How are keys rotated?")
        assert "Rotate keys" in markdown(second)
        rig.kapa.clear_faults()
