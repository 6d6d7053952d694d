"""The bridge on real servers: over TLS, behind Sentinel and on a Cluster, whose primary dies while questions run."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import app, check, redis_client, watch
from bridge.dead_letters import DeadLetters
from bridge.embedded_redis import find_server
from bridge.inbox import TAG, Inbox, Item, Kind, Put
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.slack import SimulatedSlack
from bridge.settings import load
from tests.redis_servers import HOST, LOGIN, SENTINEL_PASSWORD, SERVICE, Certificate, Servers, Topology, the_server
from tests.rig import ADA, GENERAL, GRACE, HELP, PAGES, Rig, count, hurry, markdown, settled
from tests.waiting import eventually

PLANNED = {"sentinel": ("SENTINEL FAILOVER", SERVICE), "cluster": ("CLUSTER FAILOVER",)}
# Sentinel makes a replica of a primary that is still there some ten seconds later, and it takes writes till then.
SOON_AFTER = {"sentinel": "master", "cluster": "slave"}


async def findings(rig: Rig, url: str = "") -> list[tuple[bool | None, str]]:
    """Give what `bridge check` says of Redis, line for line, and whether that is well."""
    given = rig.environment(redis_url=url or rig.redis_url)
    settings = load(overrides={name.lower(): text for name, text in given.items()})
    return [(finding.ok, finding.text) async for finding in check.run(settings) if finding.name == "Redis"]


# A primary that dies


@asynccontextmanager
async def patient_rig(url: str, folder: Path, may_send_again: asyncio.Event) -> AsyncIterator[Rig]:
    """Serve a rig whose Slack waits with its second redelivery until it may."""

    async def pause(seconds: float) -> None:
        if seconds:
            await may_send_again.wait()

    slack, kapa = SimulatedSlack(sleep=pause, limits=None), SimulatedKapa(Knowledge(PAGES), pace=Pace(0, 0))
    async with slack.serve(), kapa.serve():
        yield Rig(slack, kapa, url, folder)


@pytest.mark.parametrize("way", ["sentinel", "cluster"])
async def test_a_running_bridge_outlives_its_primary(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.02)
    is_back = asyncio.Event()
    async with Servers(tmp_path / "servers") as servers:
        topology: Topology = await getattr(servers, way)()
        async with (
            patient_rig(topology.url, tmp_path, is_back) as rig,
            rig.bridge(http=True, bridge_lease_seconds=1) as bridge,
        ):
            ts, _ = await rig.ask(ADA, GENERAL, "How are threads stored?")
            rig.kapa.hold(after_pieces=2)
            other = await rig.slack.say(GRACE, HELP, "How are keys rotated?")
            await rig.slack.wait_for(lambda: rig.replies(HELP, other), 10)
            await rig.slack.say(GRACE, HELP, "And how is it installed?", thread=other)
            await rig.slack.wait_for(lambda: count(bridge, "events_total", result="accepted") == 3, 10)

            # It may be over by the time that an event is refused.
            is_away = asyncio.create_task(eventually(lambda: count(bridge, "redis_takes_writes") == 0))
            await topology.kill_holder()
            died_at = monotonic()
            await rig.slack.say(ADA, GENERAL, "And for how long?", thread=ts)
            await rig.slack.wait_for(lambda: any(sent.status == 503 for sent in rig.slack.deliveries), 10)
            rig.kapa.release()
            await is_away
            await eventually(lambda: count(bridge, "redis_takes_writes") == 1)
            away = monotonic() - died_at
            is_back.set()
            answers = {HELP: await rig.answer(HELP, other, 2, 20), GENERAL: await rig.answer(GENERAL, ts, 2, 20)}
            await rig.slack.say(ADA, GENERAL, "And keys?", thread=ts)
            answers[GENERAL] = await rig.answer(GENERAL, ts, 3)
            await settled(rig, bridge.redis)
            assert await DeadLetters(bridge.redis).read() == []
            assert (rig.replies(HELP, other), rig.replies(GENERAL, ts)) == (answers[HELP], answers[GENERAL])
    told = [reply["metadata"]["event_payload"] for replies in answers.values() for reply in replies]
    assert len(told) == 5 == len({str(payload) for payload in told})
    assert "Rotate keys" in markdown(answers[HELP][0])
    threads = {asked.query: asked.thread_id for asked in rig.kapa.asked}
    assert threads["How are threads stored?"] == threads["And for how long?"] == threads["And keys?"]
    tell(f"failover ({way}): the bridge wrote again {away:.1f} s after its primary was killed")


# A primary that steps down


@pytest.mark.parametrize("way", ["sentinel", "cluster"])
async def test_over_tls_a_client_follows_a_primary_that_steps_down(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "cluster":
        # The old primary's own word is enough.
        monkeypatch.setattr(redis_client, "ASK_AGAIN_SECONDS", 3600)
    certificate = Certificate.make(tmp_path, "ours")
    async with Servers(tmp_path / "servers", certificate) as servers:
        topology: Topology = await getattr(servers, way)()
        async with redis_client.connect(topology.url) as client:
            # More at once than there are connections: each waits its turn.
            assert {*await asyncio.gather(*puts(client))} == {Put.ACCEPTED}
            assert await client.wait(1, 5000) == 1
            before = await topology.holder()
            [replica] = [node for node in topology.nodes if (await node.info())["role"] == "slave"]
            await (topology.sentinel or replica).command(*PLANNED[way])

            async def has_followed() -> bool:
                with suppress(RedisError):
                    await client.set(f"{TAG}:x", "")
                    return bool((await client.info())["run_id"] == run_id)
                return False

            run_id = (await replica.info())["run_id"]
            await eventually(has_followed)
            assert (await before.info())["role"] == SOON_AFTER[way]
            assert {*await asyncio.gather(*puts(client))} == {Put.DUPLICATE}
            # None of the connections to the old primary is left to answer what has no key.
            infos = await asyncio.gather(*(client.info() for _ in range(redis_client.MOST_CONNECTIONS)))
            assert {info["run_id"] for info in infos} == {run_id}


def puts(client: Redis) -> list[Coroutine[Any, Any, Put]]:
    """Give the putting of a hundred items, always the same."""
    inbox = Inbox(client, Kind.QUESTION)
    return [inbox.put(Item(f"{n}", f"T:C:{n}", f"{n}", ""), seen=[f"{n}"]) for n in range(100)]


@pytest.mark.parametrize("binary", sorted({the_server(), find_server()}), ids=lambda binary: binary.parent.name)
async def test_a_primary_that_became_a_replica_is_left_at_once(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "ASK_AGAIN_SECONDS", 3600)
    async with Servers(tmp_path / "servers", binary=binary) as servers, a_sentinel() as (at, said):
        one, two = await servers.start(), await servers.start()
        said.port = one.port
        async with redis_client.connect(servers.url("+sentinel", f"{LOGIN}{at}", f"/{SERVICE}")) as client:
            assert await client.set(f"{TAG}:x", "one")
            script = client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
            assert await script(keys=[f"{TAG}:x"], args=["one"])
            # Twice, since one reply comes from a command and one from inside a script; and there and back again.
            for now, before, write in ((two, one, script), (one, two, None)):
                await now.command("REPLICAOF", "NO", "ONE")
                await before.command("REPLICAOF", HOST, now.port)
                said.port = now.port
                assert await (write(keys=[f"{TAG}:x"], args=["x"]) if write else client.set(f"{TAG}:x", "x"))
                assert (await client.info())["tcp_port"] == now.port
            # Nobody knows a better one: the server's own word is the error.
            await one.command("REPLICAOF", HOST, two.port)
            assert await redis_client.refusal(client) == "READONLY"
            with pytest.raises(redis_client.ElsewhereError, match="and is a replica"):
                await client.get(f"{TAG}:x")


@dataclass
class Said:
    """Which port a sentinel gives as the primary's."""

    port: int = 0


@asynccontextmanager
async def a_sentinel() -> AsyncIterator[tuple[str, Said]]:
    """Serve what says as a sentinel does who the primary is, and nothing else; gives its address."""
    said = Said()

    def state() -> str:
        fields = {"name": SERVICE, "ip": HOST, "port": str(said.port), "flags": "master"}
        words = [word for pair in fields.items() for word in pair]
        return f"*1\r\n*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            command = [(await reader.readline(), await reader.readline())[1] for _ in range(int(header[1:]))]
            writer.write(state().encode() if command[0] == b"SENTINEL\r\n" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}", said


# TLS


async def test_over_tls_the_bridge_answers_and_a_stranger_is_refused(tmp_path: Path) -> None:
    ours, other = (Certificate.make(tmp_path, name) for name in ("ours", "other"))
    async with Servers(tmp_path / "servers", ours) as servers:
        topology = await servers.single()
        async with Rig.serving(topology.url, tmp_path) as rig:
            async with rig.bridge():
                _, answer = await rig.ask(ADA, GENERAL, "How are threads stored?")
            assert "stored in Redis" in markdown(answer)
            assert [is_well for is_well, _ in await findings(rig)] == [True]
            # An authority that is not ours, none but the system's, a name that is not in it, a client without one.
            place = topology.url.partition("?")[0]
            for url in (
                topology.url.replace("ours-authority.crt", "other-authority.crt"),
                place,
                topology.url.replace(f"@{HOST}", "@localhost"),
                f"{place}?ssl_ca_certs={ours.authority}",
            ):
                [(is_well, text)] = await findings(rig, url)
                assert (is_well, text.split(": ")[:2]) == (False, ["REDIS_URL", "Redis cannot be used"]), url
            assert "CERTIFICATE_VERIFY_FAILED" in (await findings(rig, place))[0][1]
            assert other.authority.exists()
            unverified = f"{topology.url}&ssl_cert_reqs=none".replace(f"@{HOST}", "@localhost")
            assert [is_well for is_well, _ in await findings(rig, unverified)] == [True]


@pytest.mark.parametrize("way", ["", "+sentinel", "+cluster"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("ssl_ca_certs=/there/is/none.crt", "the files in the URL's ssl_ options cannot be used: No such file or"),
        ("ssl_cert_reqs=some", "the URL has an option with a value that does not exist: Invalid SSL"),
        ("ssl_min_version=1", "Unsupported TLS/SSL version"),
        ("ssl_odd=1", "the URL has an option that does not exist"),
    ],
)
def test_options_of_tls_that_mean_nothing_are_refused(way: str, options: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        redis_client.connect(f"rediss{way}://{LOGIN}{HOST}:1/{'service' if way == '+sentinel' else ''}?{options}")


# What the URL says, and what is there


async def test_one_node_of_a_cluster_is_not_the_cluster(tmp_path: Path) -> None:
    async with Servers(tmp_path / "servers") as servers:
        topology = await servers.cluster()
        async with Rig.serving(topology.url, tmp_path) as rig:
            [(is_well, text)] = await findings(rig)
            assert (is_well, text.partition(": ")[2]) == (
                True,
                "keeps every write; a failover may cost what no replica had yet, as min-replicas-to-write is 0; "
                "a power failure may cost the last second or two",
            )
            holder = await topology.holder()
            for node in topology.nodes:
                rig.redis_url = servers.url("", f"{LOGIN}{HOST}:{node.port}")
                instead = "redis+cluster:// (over TLS rediss+cluster://)"
                if node is holder:
                    assert await findings(rig) == [
                        (
                            False,
                            "Redis is a node of a Cluster, whose keys are at another node after a failover; "
                            f"begin REDIS_URL with {instead}, which follows them",
                        )
                    ]
                    continue
                sentence = (
                    "REDIS_URL: this Redis is a node of a Cluster, and the bridge's keys are at another node; "
                    f"begin it with {instead} instead"
                )
                assert await findings(rig) == [(False, sentence)]
                with pytest.raises(app.StartError) as raised:
                    async with rig.bridge():
                        pytest.fail("it started")
                assert str(raised.value) == sentence


async def test_what_is_no_cluster_no_service_or_not_let_in_is_told(tmp_path: Path) -> None:
    async with Servers(tmp_path / "servers") as servers:
        topology = await servers.sentinel()
        assert topology.sentinel is not None
        sentinel, primary = (f"{HOST}:{server.port}" for server in (topology.sentinel, topology.nodes[0]))
        secrets = {"sentinel_password": SENTINEL_PASSWORD}
        cases = {
            servers.url("+cluster", f"{LOGIN}{primary}"): (
                f"{primary}: it is no node of a Cluster: write redis:// instead of redis+cluster://"
            ),
            servers.url("+sentinel", f"{LOGIN}{sentinel}", "/no-service", **secrets): (
                f"{sentinel}: it knows no service no-service"
            ),
            servers.url("+sentinel", f"{LOGIN}{sentinel}", f"/{SERVICE}"): f"{sentinel}: Authentication required",
            servers.url("+sentinel", f"{LOGIN}{sentinel}", f"/{SERVICE}", sentinel_password="hunter2"): (
                f"{sentinel}: invalid username-password pair"
            ),
        }
        async with Rig.serving(topology.url, tmp_path) as rig:
            assert [is_well for is_well, _ in await findings(rig)] == [True]
            for url, reason in cases.items():
                [(is_well, text)] = await findings(rig, url)
                assert not is_well
                assert text.startswith(f"REDIS_URL: Redis cannot be used: the primary is not known: {reason}")
        async with redis_client.connect(
            servers.url("+sentinel", f"wrong:hunter2@{sentinel}", f"/{SERVICE}", **secrets)
        ) as client:
            with pytest.raises(exceptions.AuthenticationError) as raised:
                await client.ping()
            assert "hunter2" not in str(raised.value)
