"""Real Redis servers on loopback, as processes of a test's own: single, behind Sentinel, and as a Cluster; with TLS.

The server is the redis-server on PATH, else the embedded one. Where that one cannot do TLS, a front that can stands
before it.
"""

import asyncio
import random
import shutil
import socket
import ssl
import subprocess
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import trustme
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from bridge.embedded_redis import find_server
from bridge.inbox import TAG
from tests.waiting import eventually

HOST = "127.0.0.1"
PASSWORD, SENTINEL_PASSWORD = "p@ss/w0rd:,", "s@ntinel+%"
LOGIN = f"default:{quote(PASSWORD, safe='')}@"
SERVICE = "my-service"
SLOTS = 16384
# A node's bus has the port 10,000 above its own; both stay below those that the system gives to whoever asks.
BUS = 10_000
PORTS = range(20_000, 22_700)
# As quick as a machine allows on which other tests run too.
SENTINEL_TIMES = {"down-after-milliseconds": 500, "failover-timeout": 2000}
NODE_TIMEOUT_MS = 1000
TLS_HANDSHAKE = b"\x16"


def the_server() -> Path:
    """Find the redis-server of these tests."""
    found = shutil.which("redis-server")
    return Path(found) if found else find_server()


@cache
def speaks_tls(server: Path) -> bool:
    """Say whether this redis-server was built with TLS."""
    tried = subprocess.run(  # noqa: S603 - it ends at once: it has no certificate
        [server, "--port", "0", "--tls-port", "1"], capture_output=True, text=True, timeout=10, check=False
    )
    return "Bad directive" not in tried.stdout + tried.stderr


def _is_free(port: int) -> bool:
    with socket.socket() as one, socket.socket() as bus, suppress(OSError):
        one.bind((HOST, port))
        bus.bind((HOST, port + BUS))
        return True
    return False


@dataclass(frozen=True)
class Certificate:
    """A certificate for HOST with its key, and the authority that issued it and nothing else."""

    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> "Certificate":
        """Make a new one."""
        made = cls(folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}-authority.crt")
        authority = trustme.CA()
        issued = authority.issue_cert(HOST)
        issued.cert_chain_pems[0].write_to_path(made.certificate)
        issued.private_key_pem.write_to_path(made.key)
        authority.cert_pem.write_to_path(made.authority)
        return made

    @property
    def options(self) -> dict[str, str]:
        """The options of a URL with which a client trusts this certificate, and shows it."""
        return {
            "ssl_ca_certs": str(self.authority),
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.key),
        }

    @property
    def context(self) -> ssl.SSLContext:
        """What a server shows, which lets in only who shows the same."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass
class Server:
    """One redis-server: `port` is where clients find it, `plain_port` where a test does, without TLS."""

    port: int
    plain_port: int
    bus_port: int
    password: str
    process: Process

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Give a client of this very server."""
        async with Redis(
            host=HOST, port=self.plain_port, password=self.password, decode_responses=True, protocol=2
        ) as client:
            yield client

    async def command(self, *words: str | int) -> Any:
        """Have it do a command of an operator's; gives the reply as it comes."""
        async with self.client() as client:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py's

    async def info(self) -> dict[str, Any]:
        """Give what it says of itself."""
        async with self.client() as client:
            return await client.info()

    async def answers(self) -> bool:
        """Say whether it takes commands; raises AssertionError when it has ended."""
        assert self.process.returncode is None, f"the redis-server ended with {self.process.returncode}"
        try:
            return bool(await self.command("PING"))
        except RedisError:
            return False

    async def holds_the_keys(self) -> bool:
        """Say whether it lives, and takes writes of the bridge's keys."""
        try:
            return self.process.returncode is None and bool(await self.command("SET", f"{TAG}:holder", "", "EX", 1))
        except RedisError:
            return False

    async def kill(self) -> None:
        """End it as a power failure would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@dataclass
class Servers:
    """Starts servers and ends them; with a `certificate` all of them are reached over TLS."""

    folder: Path
    certificate: Certificate | None = None
    binary: Path = field(default_factory=the_server)
    _ports: set[int] = field(default_factory=set)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> "Servers":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def url(self, way: str, authority: str, path: str = "", **options: str) -> str:
        """Give a URL; `way` is empty, +sentinel or +cluster."""
        tls = self.certificate.options if self.certificate else {}
        query = urlencode(tls | options)
        return f"{'rediss' if tls else 'redis'}{way}://{authority}{path}{query and '?'}{query}"

    def free_port(self) -> int:
        """Give a port that nothing listens on, nor on that of its bus."""
        port = next(port for port in random.sample(PORTS, len(PORTS)) if port not in self._ports and _is_free(port))
        self._ports.add(port)
        return port

    async def start(self, *lines: str, password: str = PASSWORD, is_sentinel: bool = False) -> Server:
        """Start a server with these lines in its configuration, and wait until it answers."""
        port, plain_port, bus_port, listening = await self._listening()
        folder = self.folder / f"redis-{port}"
        folder.mkdir(parents=True)
        common = [f"bind {HOST}", f'dir "{folder}"', f'requirepass "{password}"', *listening]
        if not is_sentinel:
            common += ['save ""', "appendonly yes", f'masterauth "{password}"', "repl-diskless-sync-delay 0"]
            # A Cluster does not name a replica that has heard nothing of its primary yet.
            common += ["repl-ping-replica-period 1"]
        file = folder / "redis.conf"
        file.write_text("\n".join([*common, *lines, ""]), encoding="utf-8")
        arguments = [file, "--sentinel"] if is_sentinel else [file]
        process = await asyncio.create_subprocess_exec(self.binary, *arguments, stdout=DEVNULL, stderr=STDOUT)
        server = Server(port, plain_port, bus_port, password, process)
        self._stack.push_async_callback(server.kill)
        await eventually(server.answers)
        return server

    async def _listening(self) -> tuple[int, int, int, list[str]]:
        """Choose the ports of a server: its clients', a test's and its bus', and the lines that make it listen."""
        port = self.free_port()
        if self.certificate is None:
            return port, port, port + BUS, [f"port {port}"]
        plain_port = self.free_port()
        if not speaks_tls(self.binary):
            await self._stack.enter_async_context(_front(port, plain_port, self.certificate.context))
            announced = [f"replica-announce-port {port}", f"cluster-announce-port {port}"]
            return port, plain_port, plain_port + BUS, [f"port {plain_port}", *announced]
        ours = self.certificate
        files = [f'tls-cert-file "{ours.certificate}"', f'tls-key-file "{ours.key}"']
        files.append(f'tls-ca-cert-file "{ours.authority}"')
        lines = [f"port {plain_port}", f"tls-port {port}", *files, "tls-replication yes", "tls-cluster yes"]
        return port, plain_port, port + BUS, lines

    async def single(self) -> "Topology":
        """Start one server."""
        server = await self.start()
        return Topology(self.url("", f"{LOGIN}{HOST}:{server.port}"), [server])

    async def sentinel(self) -> "Topology":
        """Start a primary, its replica and a sentinel, which has an unreachable one before it in the URL."""
        primary = await self.start()
        replica = await self.start(f"replicaof {HOST} {primary.port}")
        await eventually(lambda: _is_linked(replica))
        lines = [f"sentinel monitor {SERVICE} {HOST} {primary.port} 1", f'sentinel auth-pass {SERVICE} "{PASSWORD}"']
        lines += [f"sentinel {name} {SERVICE} {ms}" for name, ms in SENTINEL_TIMES.items()]
        sentinel = await self.start(*lines, password=SENTINEL_PASSWORD, is_sentinel=True)
        await eventually(lambda: _knows_a_replica(sentinel))
        authority = f"{LOGIN}{HOST}:{self.free_port()},{HOST}:{sentinel.port}"
        url = self.url("+sentinel", authority, f"/{SERVICE}/0", sentinel_password=SENTINEL_PASSWORD)
        return Topology(url, [primary, replica], sentinel)

    async def cluster(self) -> "Topology":
        """Start three primaries and a replica of the one that holds the bridge's keys.

        The URL names that one, and one that is unreachable.
        """
        lines = ("cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}", "cluster-replica-validity-factor 0")
        nodes = [await self.start(*lines) for _ in range(4)]
        *primaries, replica = nodes
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(primaries):
            await node.command("CLUSTER ADDSLOTS", *range(*bounds[number : number + 2]))
            await node.command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            await nodes[0].command("CLUSTER MEET", HOST, node.port, node.bus_port)
        for node in nodes:
            await eventually(partial(_knows_the_others, node, len(nodes)))
        slot = key_slot(TAG.encode())
        owner = next(node for node, end in zip(primaries, bounds[1:], strict=True) if slot < end)
        await replica.command("CLUSTER REPLICATE", await owner.command("CLUSTER MYID"))
        await eventually(lambda: _is_linked(replica))
        for node in nodes:
            await eventually(partial(_is_whole, node, slot))
        authority = f"{LOGIN}{HOST}:{self.free_port()},{HOST}:{owner.port}"
        return Topology(self.url("+cluster", authority), nodes)


@dataclass
class Topology:
    """Servers that work together, and the URL of the whole."""

    url: str
    nodes: list[Server]
    sentinel: Server | None = None

    async def holder(self) -> Server:
        """Give the node that takes writes of the bridge's keys, as soon as there is one."""

        async def found() -> Server | None:
            for node in self.nodes:
                if await node.holds_the_keys():
                    return node
            return None

        return cast("Server", await eventually(found))

    async def kill_holder(self) -> None:
        """Kill the node that holds the bridge's keys, once its replica has all that was acknowledged."""
        holder = await self.holder()
        async with holder.client() as client:
            await client.set(f"{TAG}:holder", "", ex=1)
            assert await client.wait(1, 5000) == 1
        await holder.kill()


async def _is_linked(replica: Server) -> bool:
    return (await replica.info()).get("master_link_status") == "up"


async def _knows_a_replica(sentinel: Server) -> bool:
    async with sentinel.client() as client:
        replicas = await client.sentinel_slaves(SERVICE)
    return [(replica["flags"], replica["master-link-status"]) for replica in replicas] == [("slave", "ok")]


async def _knows_the_others(node: Server, count: int) -> bool:
    known = cast("dict[str, dict[str, Any]]", await node.command("CLUSTER NODES"))
    return len(known) == count and all(one["connected"] and "handshake" not in one["flags"] for one in known.values())


async def _is_whole(node: Server, slot: int) -> bool:
    """Say whether a node takes the Cluster for whole, and knows of the replica."""
    is_ok = cast("dict[str, str]", await node.command("CLUSTER INFO"))["cluster_state"] == "ok"
    shards = cast("list[list[Any]]", await node.command("CLUSTER SLOTS"))
    return is_ok and any(first <= slot <= last and len(nodes) == 2 for first, last, *nodes in shards)


@asynccontextmanager
async def _front(port: int, behind: int, context: ssl.SSLContext) -> AsyncIterator[None]:
    """Take the TLS off what comes in at `port`, and hand it to the server at `behind`.

    What comes without TLS, as from another server, is handed on as it is.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((HOST, port)))
        listener.setblocking(False)

        def accept() -> None:
            with suppress(BlockingIOError):
                connection, _ = listener.accept()
                connection.setblocking(False)
                # A task that is cancelled before it has begun closes nothing.
                sockets.enter_context(connection)
                tasks.add(asyncio.create_task(_hand_on(connection, behind, context)))

        loop.add_reader(listener, accept)
        try:
            yield
        finally:
            loop.remove_reader(listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _hand_on(connection: socket.socket, behind: int, context: ssl.SSLContext) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    with connection, suppress(OSError):
        is_tls = await _first_byte(connection) == TLS_HANDSHAKE
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=context if is_tls else None)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, behind)
            try:
                pumps = [asyncio.create_task(_pump(*way)) for way in ((reader, inner_writer), (inner_reader, writer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                inner_writer.close()
        finally:
            transport.abort()


async def _first_byte(connection: socket.socket) -> bytes:
    """Give the first byte that comes in, and leave it where it is."""
    loop, is_readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
