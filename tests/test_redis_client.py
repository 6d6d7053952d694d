import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import app, redis_client
from bridge.settings import load
from tests.rig import Rig
from tests.waiting import eventually


@asynccontextmanager
async def saying(info: str) -> AsyncIterator[str]:
    """Serve what speaks Redis' protocol and says this of itself; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = [await _word(reader) for _ in range(int(header[1:]))]
            reply = f"${len(info)}\r\n{info}\r\n" if words[0] == b"INFO" else "+OK\r\n"
            writer.write(b"-ERR unknown command\r\n" if words[0] == b"CONFIG" else reply.encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readline())[1:])
    return (await reader.readexactly(length + 2))[:-2]


async def test_a_client_speaks_text_and_says_who_it_is(redis: Redis) -> None:
    await redis.set("key", "ä🎉")
    assert await redis.get("key") == "ä🎉"
    assert "bridge" in {client["name"] for client in await redis.client_list()}


async def test_a_connection_that_broke_while_idle_is_replaced(redis: Redis) -> None:
    await redis.set("key", "value")
    first = await redis.client_id()
    await redis.client_kill_filter(_type="normal", skipme=False)
    assert await redis.get("key") == "value"
    assert await redis.client_id() != first


async def test_without_a_server_there_is_an_error() -> None:
    async with redis_client.connect("unix:///there/is/none.sock") as client:
        with pytest.raises(exceptions.ConnectionError):
            await client.ping()


async def test_a_silent_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "SILENCE_SECONDS", 0.1)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with (
        server,
        redis_client.connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client,
    ):
        with pytest.raises(exceptions.TimeoutError):
            await client.ping()


async def test_a_wrong_password_is_an_error_that_does_not_tell_it(redis: Redis, redis_url: str) -> None:
    await redis.config_set("requirepass", "the-right-one")
    for password in ("hunter2", ""):
        async with redis_client.connect(redis_url.replace("unix://", f"unix://:{password}@")) as client:
            with pytest.raises(RedisError) as raised:
                await client.ping()
            assert str(raised.value)
            assert "hunter2" not in str(raised.value)
    async with redis_client.connect(redis_url.replace("unix://", "unix://:the-right-one@")) as client:
        assert await client.ping()
    await redis.config_set("requirepass", "")


@pytest.mark.parametrize(
    "option",
    ["no_such_option=1", "socket_timeout=soon", "socket_timeout=1.9", "socket_timeout=0", "ssl_cert_reqs=none"],
)
async def test_options_that_mean_nothing_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"option|socket_timeout"):
        redis_client.connect(f"redis://:hunter2@127.0.0.1/0?{option}")
    settings = load(overrides={"redis_url": f"redis://:hunter2@127.0.0.1/0?{option}"})
    with pytest.raises(app.StartError, match="REDIS_URL: ") as raised:
        async with app.open_redis(settings):
            pytest.fail("it was opened")
    assert "hunter2" not in str(raised.value)


# Will it do?


async def test_the_bridge_s_own_redis_will_do(redis: Redis) -> None:
    assert await redis_client.shortcomings(redis) == ([], [])


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_redis_that_evicts_questions_will_not_do(redis: Redis, policy: str) -> None:
    await redis.config_set("maxmemory", "100mb")
    await redis.config_set("maxmemory-policy", policy)
    assert await redis_client.shortcomings(redis) == (
        [
            "REDIS_URL: this Redis evicts questions in silence when it is full "
            f"(maxmemory-policy {policy}); set its maxmemory-policy to noeviction"
        ],
        [],
    )


async def test_a_policy_without_effect_is_told(redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    assert await redis_client.shortcomings(redis) == (
        [],
        ["Redis may evict questions (maxmemory-policy allkeys-lru) once it has a maxmemory; set it to noeviction"],
    )


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"])
async def test_what_puts_messages_at_risk_is_told(redis: Redis, policy: str) -> None:
    await redis.config_set("maxmemory", "100mb")
    await redis.config_set("maxmemory-policy", policy)
    await redis.config_set("appendonly", "no")
    fatal, risky = await redis_client.shortcomings(redis)
    assert fatal == []
    assert [sentence.split(" (")[0] for sentence in risky] == [
        "Redis forgets what it has answered when it is full",
        "Redis does not persist every write",
    ]
    assert policy in risky[0]


@asynccontextmanager
async def hosted(redis: Redis, url: str) -> AsyncIterator[Redis]:
    """Give a client of the same Redis that may not ask for its configuration."""
    await redis.acl_setuser("hosted", enabled=True, nopass=True, commands=["+@all", "-config"], keys=["*"])
    async with redis_client.connect(url.replace("unix://", "unix://hosted:x@")) as client:
        with pytest.raises(RedisError):
            await client.config_get("maxmemory-policy")
        yield client


async def test_where_config_is_forbidden_info_says_as_much(redis: Redis, redis_url: str) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    async with hosted(redis, redis_url) as client:
        _, risky = await redis_client.shortcomings(client)
        assert "maxmemory-policy allkeys-lru" in risky[0]
        await redis.config_set("maxmemory", "100mb")
        fatal, _ = await redis_client.shortcomings(client)
        assert "maxmemory-policy allkeys-lru" in fatal[0]


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("maxmemory:0", "Redis does not say whether it evicts; see that its maxmemory-policy is noeviction"),
        (
            "maxmemory_policy:allkeys-lru",
            "Redis may evict questions (maxmemory-policy allkeys-lru) once it has a maxmemory; set it to noeviction",
        ),
    ],
)
async def test_what_a_redis_keeps_to_itself_is_told(says: str, sentence: str) -> None:
    info = f"# Server\r\nredis_version:7.2.0\r\nrole:master\r\n{says}\r\naof_enabled:1\r\n"
    async with saying(info) as url, redis_client.connect(url) as client:
        assert await redis_client.shortcomings(client) == ([], [sentence])


async def test_a_bridge_does_not_start_on_a_redis_that_evicts_questions(rig: Rig, redis: Redis) -> None:
    await redis.config_set("maxmemory", "100mb")
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(app.StartError, match=r"REDIS_URL: .* set its maxmemory-policy to noeviction"):
        async with rig.bridge():
            pytest.fail("it started")


async def test_a_replica_will_not_do(redis: Redis) -> None:
    await redis.replicaof("127.0.0.1", 1)
    fatal, _ = await redis_client.shortcomings(redis)
    await redis.replicaof("NO", "ONE")
    assert fatal == ["REDIS_URL: this Redis is a read-only replica; the bridge needs the primary"]


@pytest.mark.parametrize(
    ("version", "is_new_enough"),
    [
        ("5.0.14", False),
        ("6.0.16", False),
        ("6.2.0", True),
        ("6.2", True),
        ("7.0.0", True),
        ("10.0.1", True),
        ("255.255.255", True),
        ("unknown", False),
        ("", False),
    ],
)
async def test_an_old_redis_will_not_do(version: str, is_new_enough: bool) -> None:
    info = f"# Server\r\nredis_version:{version}\r\nrole:master\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"
    async with saying(info) as url, redis_client.connect(url) as client:
        fatal, risky = await redis_client.shortcomings(client)
    assert risky == []
    assert (fatal == []) is is_new_enough
    assert is_new_enough or fatal[0].endswith("the bridge needs 6.2 or newer")


async def test_a_redis_that_says_nothing_of_itself_will_not_do() -> None:
    async with saying("") as url, redis_client.connect(url) as client:
        fatal, risky = await redis_client.shortcomings(client)
    assert (len(fatal), len(risky)) == (1, 2)


async def test_a_redis_that_cannot_be_asked_is_an_error() -> None:
    async with redis_client.connect("unix:///there/is/none.sock") as client:
        with pytest.raises(RedisError):
            await redis_client.shortcomings(client)


def test_a_connection_that_was_reset_while_it_was_idle_is_made_anew() -> None:
    # Where nobody speaks for long, something between the two forgets that there is a connection.
    uvloop = pytest.importorskip("uvloop")
    accepted: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        while header := await reader.readline():
            for _ in range(int(header[1:])):
                await _word(reader)
            writer.write(b"+OK\r\n")
        writer.close()

    async def ask_after_a_reset() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, redis_client.connect(f"redis://127.0.0.1:{port}") as redis:
            assert await redis.get("key") == "OK"
            writer = redis._at_hand._writer  # type: ignore[attr-defined] # the client's own
            [connection] = accepted
            linger = struct.pack("ii", 1, 0)
            connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.transport.abort()
            await eventually(writer.transport.is_closing)
            assert await redis.get("key") == "OK"
            assert len(accepted) == 2

    uvloop.run(ask_after_a_reset())
