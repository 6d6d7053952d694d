"""The client that shares pipelines, on a real Redis: every command gets its own reply, whatever the others do."""

import asyncio
import errno
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge import pipelining, redis_client
from bridge.embedded_redis import EmbeddedRedis
from bridge.pipelining import PipeliningRedis
from bridge.work import end
from tests.waiting import PATIENCE, eventually


async def reads(redis: Redis) -> int:
    """How often Redis has read something from a connection."""
    return int((await redis.info("stats"))["total_reads_processed"])


async def test_what_is_asked_together_is_sent_together_and_each_gets_its_own_reply(redis: Redis) -> None:
    await asyncio.gather(*(redis.set(f"key{number}", number) for number in range(50)))
    before = await reads(redis)
    replies = await asyncio.gather(*(redis.get(f"key{number}") for number in range(50)))
    # The first one finds nothing under way and is sent alone.
    assert await reads(redis) - before <= 4
    assert replies == [str(number) for number in range(50)]


async def test_replies_are_read_as_their_commands_want_them(redis: Redis) -> None:
    await redis.hset("hash", mapping={"a": "1"})
    found = await asyncio.gather(
        redis.get("nothing"), redis.hgetall("hash"), redis.exists("hash"), redis.time(), redis.ping(), redis.info()
    )
    assert found[:3] == [None, {"a": "1"}, 1]
    assert found[4] is True
    assert found[5]["redis_version"]


async def test_an_error_is_its_own_command_s_alone(redis: Redis) -> None:
    await redis.set("text", "x")
    replies = await asyncio.gather(
        redis.get("text"), redis.incr("text"), redis.lpush("text", "y"), redis.get("text"), return_exceptions=True
    )
    assert replies[0] == replies[3] == "x"
    assert all(isinstance(reply, ResponseError) for reply in replies[1:3])


async def test_a_script_that_redis_has_forgotten_is_loaded_again_for_each(redis: Redis) -> None:
    double = redis.register_script("return ARGV[1] * 2")
    await redis.script_flush()
    with pytest.raises(NoScriptError):
        await redis.evalsha(double.sha, 0, 1)
    assert await asyncio.gather(*(double(args=[number]) for number in range(5))) == [0, 2, 4, 6, 8]


async def test_who_is_cancelled_takes_nobody_else_s_reply_away(redis: Redis) -> None:
    await redis.set("key", "value")
    asking = [asyncio.ensure_future(redis.get("key")) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    assert replies[1::2] == ["value"] * 5
    # The first one is sent as redis-py itself does it, which may have its reply before it hears of its end.
    assert all(isinstance(reply, asyncio.CancelledError) for reply in replies[2::2])
    # The connections are still in step.
    found = await asyncio.gather(redis.get("key"), redis.get("none"), redis.get("key"))
    assert list(found) == ["value", None, "value"]


async def _is_blocked(redis: Redis) -> bool:
    return bool((await redis.info("clients"))["blocked_clients"])


async def test_a_blocking_read_holds_nobody_up(redis: Redis) -> None:
    await redis.xgroup_create("stream", "group", mkstream=True)
    reading: asyncio.Future[Any] = asyncio.ensure_future(redis.xreadgroup("group", "a", {"stream": ">"}, block=30_000))
    await eventually(lambda: _is_blocked(redis))
    assert await asyncio.gather(*(redis.ping() for _ in range(5))) == [True] * 5
    await redis.xadd("stream", {"a": "b"})
    [(name, entries)] = await reading
    assert (name, [fields for _, fields in entries]) == ("stream", [{"a": "b"}])


@asynccontextmanager
async def that_cannot_be_reached() -> AsyncIterator[Redis]:
    redis = redis_client.connect("redis://127.0.0.1:1")
    yield redis
    await redis.aclose()


async def test_a_redis_that_is_away_is_an_error_for_everyone() -> None:
    async with that_cannot_be_reached() as redis:
        replies = await asyncio.gather(*(redis.get("key") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(reply, RedisConnectionError) for reply in replies)
        # And the next one starts afresh.
        with pytest.raises(RedisConnectionError):
            await redis.get("key")


async def test_a_redis_that_is_silent_is_given_up_by_everyone(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.set("key", "value")
    monkeypatch.setattr(redis_client, "SILENCE_SECONDS", 0.3)
    other = redis_client.connect(redis_url)
    assert await other.get("key") == "value"
    await redis.client_pause(60_000, all=False)
    replies = await asyncio.gather(*(other.set("another", number) for number in range(5)), return_exceptions=True)
    assert all(isinstance(reply, RedisTimeoutError) for reply in replies)
    await redis.client_unpause()
    # Nobody is given the reply to what was asked before.
    assert await asyncio.gather(*(other.get("key") for _ in range(5))) == ["value"] * 5
    await other.aclose()


async def test_a_connection_that_the_kernel_gives_up_is_an_error_and_no_reply(redis: Redis, redis_url: str) -> None:
    await redis.set("key", "value")
    other = redis_client.connect(redis_url)
    sleeping = asyncio.ensure_future(other.execute_command("DEBUG", "SLEEP", "0.2"))  # type: ignore[no-untyped-call] # redis-py's
    await eventually(lambda: bool(other.connection_pool._in_use_connections))
    asking = asyncio.ensure_future(redis.get("key"))
    await asyncio.sleep(0)
    [connection] = redis.connection_pool._in_use_connections
    # ETIMEDOUT, which is for Python the same error as a timeout of its own.
    assert connection._reader is not None
    connection._reader.set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    assert await asking == "value"
    await sleeping
    await other.aclose()


async def test_nobody_is_given_the_reply_to_another_s_command(redis: Redis) -> None:
    def confused(response: Any, **_: Any) -> Any:
        raise ValueError(response)

    await asyncio.gather(redis.set("key", "value"), redis.set("other", "value"))
    redis.set_response_callback("GET", confused)
    replies = await asyncio.gather(*(redis.get("key") for _ in range(5)), redis.echo("mine"), return_exceptions=True)
    assert all(isinstance(reply, ValueError) for reply in replies)
    assert await asyncio.gather(*(redis.echo(str(number)) for number in range(5))) == list("01234")


async def test_a_connection_at_hand_is_not_kept_from_who_waits_for_the_only_one(redis_url: str) -> None:
    async with redis_client.connect(f"{redis_url}&max_connections=1") as only:
        assert await only.ping()
        await only.xgroup_create("stream", "group", mkstream=True)
        assert not await only.xreadgroup("group", "a", {"stream": ">"}, block=1)
        assert await asyncio.gather(*(only.echo(str(number)) for number in range(3))) == list("012")


async def test_connections_that_broke_are_made_anew_without_a_word(redis: Redis, redis_url: str) -> None:
    await asyncio.gather(*(redis.set(f"key{number}", number) for number in range(20)))
    other = redis_client.connect(redis_url)
    await other.client_kill_filter(_type="normal", skipme=True)
    await other.aclose()
    assert await asyncio.gather(*(redis.get(f"key{number}") for number in range(20))) == list(map(str, range(20)))


async def test_what_a_redis_refuses_for_a_moment_is_asked_again_alone(redis_url: str) -> None:
    # What a Redis says that is a replica by now; a client that finds the primary connects to that one the second time.
    pool = BlockingConnectionPool.from_url(
        redis_url, decode_responses=True, retry_on_error=[ReadOnlyError], retry=Retry(NoBackoff(), 1)
    )
    redis = PipeliningRedis.from_pool(pool)
    refuses_once = """
        if redis.call('INCR', KEYS[1]) <= 1 then return redis.error_reply('READONLY it is a replica') end
        return 'done'
    """
    replies = await asyncio.gather(redis.ping(), *(redis.eval(refuses_once, 1, f"key{number}") for number in range(5)))
    assert replies == [True, *["done"] * 5]
    await redis.aclose()


async def test_a_client_that_is_closed_lets_what_is_under_way_end(redis_url: str) -> None:
    redis = redis_client.connect(redis_url)
    await redis.set("key", "value")
    asking = [asyncio.ensure_future(redis.get("key")) for _ in range(10)]
    await asyncio.sleep(0)
    await redis.aclose()
    assert await asyncio.gather(*asking) == ["value"] * 10


async def test_a_client_that_is_closed_lets_a_lone_command_end_and_not_be_sent_again(
    redis: Redis, redis_url: str
) -> None:
    other = redis_client.connect(redis_url)
    slow = """
        redis.call('INCR', 'count')
        local function now() local time = redis.call('TIME') return time[1] * 1000000 + time[2] end
        local until_ = now() + 50000
        while now() < until_ do end
        return 'done'
    """
    await other.ping()
    asking = asyncio.ensure_future(other.eval(slow, 0))
    await asyncio.sleep(0)
    await other.aclose()
    assert await asking == "done"
    assert await redis.get("count") == "1"
    assert not any(one.is_connected for one in other.connection_pool._available_connections)


async def test_what_is_asked_while_a_client_is_closed_ends(redis_url: str) -> None:
    for _ in range(20):
        other = redis_client.connect(redis_url)
        await other.ping()
        is_closed = asyncio.Event()

        async def ask(client: Redis, until: asyncio.Event) -> None:
            while not until.is_set():
                assert await client.echo("mine") == "mine"

        asking = [asyncio.ensure_future(ask(other, is_closed)) for _ in range(10)]
        await asyncio.sleep(0)
        await other.aclose()
        is_closed.set()
        async with asyncio.timeout(PATIENCE):
            ended = await asyncio.gather(*asking, return_exceptions=True)
        # Each with its reply, or with an error that says that there is no connection.
        assert all(one is None or isinstance(one, RedisConnectionError) for one in ended)
        await other.connection_pool.disconnect()


async def test_what_closing_cuts_off_is_not_sent_again(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelining, "CLOSING_SECONDS", 0.01)
    other = redis_client.connect(redis_url)
    await other.ping()
    await redis.client_pause(60_000, all=False)
    asking = asyncio.ensure_future(other.set("key", "value"))
    await asyncio.sleep(0)
    await other.aclose()
    with pytest.raises(RedisConnectionError):
        await asking
    await redis.client_unpause()
    assert not any(one.is_connected for one in other.connection_pool._available_connections)


def test_every_command_has_its_own_reply_over_a_network_that_breaks(tmp_path: Path) -> None:
    async def ask(number: int, redis: Redis, chance: random.Random) -> tuple[int, int]:
        """Ask again and again, now and then giving up; give how many replies there were, and how many were right."""
        replies = right = 0
        for turn in range(60):
            word = f"{number}-{turn}"
            asking = asyncio.ensure_future(redis.echo(word))
            if chance.random() < 0.25:
                await asyncio.sleep(chance.random() / 300)
                asking.cancel()
            with suppress(RedisError, asyncio.CancelledError):  # both are as they should be: another's reply is not
                found = await asking
                replies, right = replies + 1, right + (found == word)
        return replies, right

    async def everyone() -> list[tuple[int, int]]:
        chance = random.Random(7)
        async with EmbeddedRedis(tmp_path / "redis").own() as url, breaking(url, chance) as address:
            redis = redis_client.connect(f"{address}?max_connections=6&socket_timeout=2")
            found = await asyncio.gather(*(ask(number, redis, chance) for number in range(12)))
            await redis.aclose()
            assert redis.connection_pool._in_use_connections == set()
        return found

    for new_loop in (asyncio.new_event_loop, pytest.importorskip("uvloop").new_event_loop):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            found = runner.run(everyone())
        replies = sum(count for count, _ in found)
        assert replies == sum(right for _, right in found)
        assert replies > 100


@asynccontextmanager
async def breaking(redis_url: str, chance: random.Random) -> AsyncIterator[str]:
    """Serve a way to a Redis that divides, holds up, cuts off and resets what goes through it; gives its address."""
    path = redis_url.removeprefix("unix://").partition("?")[0]
    ways: set[asyncio.Task[None]] = set()

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, client: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            luck, half = chance.random(), chance.randrange(len(data))
            if luck < 0.01:
                target.write(data[:half])
                if luck < 0.005:
                    linger = struct.pack("ii", 1, 0)
                    client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            target.write(data[:half])
            if luck < 0.3:
                await asyncio.sleep(luck / 100)
            target.write(data[half:])

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_unix_connection(path)
        both = (pump(reader, redis_writer, writer), pump(redis_reader, writer, writer))
        pumps = [asyncio.ensure_future(one) for one in both]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (redis_writer, writer):
                one.transport.abort()
            await end(*pumps)

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.ensure_future(lead(reader, writer))
        ways.add(way)
        way.add_done_callback(ways.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await end(*ways)
        await server.wait_closed()


async def test_a_client_that_is_closed_waits_no_longer_for_a_redis_that_stands_still(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelining, "CLOSING_SECONDS", 0.01)
    other = redis_client.connect(redis_url)
    await asyncio.gather(*(other.ping() for _ in range(3)))
    await redis.client_pause(60_000, all=False)
    asking = [asyncio.ensure_future(other.set("key", number)) for number in range(10)]
    await asyncio.sleep(0)
    await other.aclose()
    asking[0].cancel()
    replies = await asyncio.gather(*asking, return_exceptions=True)
    await redis.client_unpause()
    # The first one was sent alone, as redis-py does it.
    assert [str(reply) for reply in replies[1:]] == ["the client was closed"] * 9


@pytest.mark.parametrize("broken", [None, "\ud800", object()])
async def test_what_cannot_be_sent_fails_for_who_asked_it_alone(redis: Redis, broken: Any) -> None:
    replies = await asyncio.gather(
        redis.set("a", 1), redis.set("b", 2), redis.set("c", broken), redis.set("d", 4), return_exceptions=True
    )
    assert [replies[0], replies[1]] == [True, True]
    assert replies[3] is True
    assert isinstance(replies[2], DataError | UnicodeEncodeError)


async def test_a_reply_that_cannot_be_read_is_an_error_for_everyone_and_nobody_waits(redis: Redis) -> None:
    unreadable = "return string.char(255)"
    replies = await asyncio.gather(
        redis.ping(), redis.eval(unreadable, 0), redis.eval(unreadable, 0), redis.ping(), return_exceptions=True
    )
    assert replies[0] is True
    assert all(isinstance(reply, UnicodeDecodeError) for reply in replies[1:])
    assert len({id(reply) for reply in replies}) == 4
    assert list(await asyncio.gather(redis.ping(), redis.ping())) == [True, True]


async def test_what_was_given_up_before_it_was_sent_is_not_sent(redis: Redis) -> None:
    asking = [asyncio.ensure_future(redis.set(name, "x")) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    asking[1].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert list(await asyncio.gather(redis.exists("a"), redis.exists("b"), redis.exists("c"))) == [1, 0, 1]


async def test_connections_that_nobody_waits_for_are_free_again(redis_url: str, redis: Redis) -> None:
    other = redis_client.connect(redis_url)
    holding = asyncio.ensure_future(other.blpop(["nothing"], timeout=60))
    await eventually(lambda: _is_blocked(redis))
    await redis.client_pause(60_000, all=False)
    for number in range(2 * redis_client.MOST_CONNECTIONS):
        asking = asyncio.ensure_future(other.set(f"key{number}", "x"))
        # It is sent, and no reply comes.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert await other.get("nothing") is None
    await redis.client_unpause()
    holding.cancel()
    await asyncio.wait([holding])
    await other.aclose()
