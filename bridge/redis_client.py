"""The one place that makes a client for a Redis URL, and that says whether a Redis will do, and takes writes.

A Sentinel's or a Cluster's primary changes: such a client asks who it is whenever it makes a connection, and drops one
that turns out to lead elsewhere. Since all keys share a slot, one node of a Cluster holds them all, and a plain client
of that node serves. What is kept in Redis lives elsewhere. The one key here:

    {bridge}:probe      written to learn whether Redis takes writes, for PROBE_SECONDS
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import unquote

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.inbox import TAG
from bridge.pipelining import PipeliningRedis

OLDEST: Final = (6, 2)
# A blocking read waits a second; a Redis that is silent for so long is gone.
SILENCE_SECONDS: Final = 10.0
LEAST_SILENCE_SECONDS: Final = 2.0
# A burst waits its turn for a connection, and not longer than Slack waits for its 200.
MOST_CONNECTIONS: Final = 32
TURN_SECONDS: Final = 2.0
# A sentinel or a node of a Cluster that does not say so soon who the primary is gives way to the next.
ASK_SECONDS: Final = 1.0
# For some ten seconds after a failover a primary that is still there takes writes, which are then thrown away.
ASK_AGAIN_SECONDS: Final = 1.0
PROBE: Final = f"{TAG}:probe"
PROBE_SECONDS: Final = 60

_URL: Final = re.compile(r"(rediss?)\+(sentinel|cluster)://(?:([^/?#]*)@)?([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")

Address = tuple[str, int]
# Asks the node at an address through a client of it; gives the primary's address, and other nodes that can be asked.
Ask = Callable[[Redis, Address], Awaitable[tuple[Address, list[Address]]]]


class ElsewhereError(RedisConnectionError):
    """Another is the primary by now; `status_code` is Redis' word for it. Its connection is no more."""


def connect(url: str) -> Redis:
    """Make a client that speaks text. A broken idle connection is replaced once, and then an error is an error.

    `url` is of one of the forms in docs/operations.md. Raises ValueError as `validate` does.
    """
    return PipeliningRedis.from_pool(_pool(url))


def validate(url: str) -> None:
    """Raise ValueError when a URL has options that mean nothing; asks nobody."""
    _pool(url)


def _pool(url: str) -> ConnectionPool:
    over_network: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    # No health checks: redis-py's own ask for a connection while one is made, without end where Redis refuses it.
    options: dict[str, Any] = {
        "max_connections": MOST_CONNECTIONS,
        "timeout": TURN_SECONDS,
        "decode_responses": True,
        "protocol": 2,
        "socket_timeout": SILENCE_SECONDS,
        "socket_connect_timeout": 3,
        "retry": Retry(NoBackoff(), 1),
        "retry_on_error": [RedisConnectionError],
        "client_name": "bridge",
        **over_network,
    }
    found = _URL.fullmatch(url)
    pool = _primary_pool(found, options) if found else BlockingConnectionPool.from_url(url, **options)
    pool.connection_class = _quick(pool.connection_class)
    _look_at(pool)
    return pool


class _Quick(AbstractConnection):
    """A connection that takes less time to send, and notices that it was reset before it does."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send what was packed, without a task and a timeout that only a Redis which reads nothing needs.

        Raises redis.ConnectionError, redis.TimeoutError.
        """
        if self._writer is None or isinstance(command, bytes | str):
            await super().send_packed_command(command, check_health)
            return
        if self._writer.transport.is_closing():
            # It was reset while it was idle: uvloop would raise what no client of Redis expects.
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the connection was reset")
        self._writer.writelines(command)
        if self._writer.transport.get_write_buffer_size():
            # No health check may read the reply to what was written.
            await super().send_packed_command((), check_health=False)


def _quick(kind: type[Any]) -> type[Any]:
    """Give the same kind of connection, made quick."""
    return type(kind.__name__, (_Quick, kind), {})


def _look_at(pool: ConnectionPool) -> None:
    """Raise ValueError for options that are looked at only as the first connection is made, or its TLS begins."""
    try:
        connection = pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
        patience = connection.socket_timeout
    except TypeError:
        raise ValueError("the URL has an option that does not exist") from None
    except RedisError as error:
        raise ValueError(f"the URL has an option with a value that does not exist: {error}") from None
    except OSError as error:
        raise ValueError(f"the files in the URL's ssl_ options cannot be used: {error.strerror or error}") from None
    if patience is not None and patience < min(LEAST_SILENCE_SECONDS, SILENCE_SECONDS):
        raise ValueError(f"its socket_timeout should be {LEAST_SILENCE_SECONDS:.0f} or more")


def _primary_pool(url: re.Match[str], options: Mapping[str, Any]) -> "_PrimaryPool":
    scheme, way, user, hosts, path, query = (part or "" for part in url.groups())
    at = f"{user}@" if user else ""
    # What redis-py makes of the URL of each host; they differ in nothing else.
    nodes = [cast("dict[str, Any]", parse_url(f"{scheme}://{at}{host}{query}")) for host in hosts.split(",")]
    addresses = [(node.pop("host"), node.pop("port", 26379 if way == "sentinel" else 6379)) for node in nodes]
    given, asking = nodes[0], {}
    is_tls = given.pop("connection_class", Connection) is SSLConnection
    if way == "sentinel":
        service, _, database = path.strip("/").partition("/")
        given = {"db": int(database or 0), **given}
        asking = {name: given.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        ask: Ask = partial(_ask_sentinel, unquote(service))
    else:
        asking = {name: given.get(name) for name in ("username", "password")}
        ask = _ask_node
    asking |= {name: value for name, value in given.items() if name.startswith("ssl_")}
    asking["connection_class"] = _quick(SSLConnection if is_tls else Connection)
    return _PrimaryPool(
        **{**options, **given},
        connection_class=_PrimarySSLConnection if is_tls else _PrimaryConnection,
        discovery=_Discovery(addresses, ask, asking),
    )


class _Discovery:
    """Finds the primary that holds the keys by asking who knows: sentinels, or the nodes of a Cluster.

    `options` are those of a connection to them. `latest` is the primary that was found last.
    """

    latest: Address | None = None

    def __init__(self, nodes: Iterable[Address], ask: Ask, options: Mapping[str, Any]) -> None:
        self._named = list(nodes)
        self._nodes = self._named
        self._ask = ask
        self._options = options
        self._clients: dict[Address, Redis] = {}
        self._ask_again_at = 0.0

    async def primary(self) -> Address:
        """Ask one node after the other until one knows the primary; raises redis.ConnectionError when none does."""
        reasons = []
        for node in self._nodes:
            # Should the asking be given up meanwhile, the next to ask begins with another node.
            self._nodes = [*(other for other in self._nodes if other != node), node]
            try:
                primary, others = await self._ask(self._client(node), node)
            except RedisError as error:
                reasons.append(f"{node[0]}:{node[1]}: {error}")
            else:
                self._nodes = list(dict.fromkeys((node, *others, *self._named)))
                await self._close(self._clients.keys() - set(self._nodes))
                self.latest = primary
                self._ask_again_at = monotonic() + ASK_AGAIN_SECONDS
                return primary
        raise RedisConnectionError(f"the primary is not known: {'; '.join(reasons)}")

    async def look_again(self) -> None:
        """Ask anew if that was long ago; where nobody knows more, what was found last stands."""
        if monotonic() < self._ask_again_at:
            return
        # Who comes meanwhile does not wait for the reply.
        self._ask_again_at = monotonic() + ASK_AGAIN_SECONDS
        with suppress(RedisConnectionError):
            await self.primary()

    def doubt(self) -> None:
        """Ask another node first from now on: what this one said was out of date."""
        self._nodes = [*self._nodes[1:], *self._nodes[:1]]

    async def aclose(self) -> None:
        """Close the connections to those who were asked."""
        await self._close(self._clients.keys())

    async def _close(self, nodes: Iterable[Address]) -> None:
        for client in [self._clients.pop(node) for node in tuple(nodes)]:
            await client.aclose()

    def _client(self, node: Address) -> Redis:
        if node not in self._clients:
            pool = ConnectionPool(
                host=node[0],
                port=node[1],
                decode_responses=True,
                protocol=2,
                socket_timeout=ASK_SECONDS,
                socket_connect_timeout=ASK_SECONDS,
                retry=Retry(NoBackoff(), 0),
                client_name="bridge",
                **self._options,
            )
            self._clients[node] = Redis.from_pool(pool)
        return self._clients[node]


async def _ask_sentinel(service: str, sentinel: Redis, _: Address) -> tuple[Address, list[Address]]:
    """Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/."""
    state = cast("dict[str, dict[str, Any]]", await sentinel.sentinel_masters()).get(service)
    if state is None:
        raise RedisConnectionError(f"it knows no service {service}")
    if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
        raise RedisConnectionError(f"the primary of {service} is down")
    return (state["ip"], state["port"]), []


async def _ask_node(node: Redis, address: Address) -> tuple[Address, list[Address]]:
    """Source: https://redis.io/docs/latest/commands/cluster-slots/."""
    try:
        shards = cast("list[list[Any]]", await node.execute_command("CLUSTER SLOTS"))  # type: ignore[no-untyped-call] # redis-py's
    except ResponseError as error:
        if "cluster support disabled" not in str(error):
            raise
        raise RedisConnectionError("it is no node of a Cluster: write redis:// instead of redis+cluster://") from None
    slot, others, primary = key_slot(TAG.encode()), [], None
    for first, last, *nodes in shards:
        # A node may not know its own host; it is then the one that was asked.
        found = [(cast("str", host or address[0]), cast("int", port)) for host, port, *_ in nodes]
        others += found
        primary = found[0] if first <= slot <= last else primary
    if primary is None:
        raise RedisConnectionError(f"no node of the Cluster holds slot {slot}, in which the bridge's keys are")
    return primary, others


class _PrimaryConnection(Connection):
    """A connection that finds out as it is made who the primary is, and ends when that is another one by now."""

    def __init__(self, *, discovery: _Discovery, **options: Any) -> None:
        self._discovery = discovery
        super().__init__(**options)

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect to who is the primary now: a retry within a command comes here as well."""
        if self.is_connected:
            return
        self.host, self.port = await self._discovery.primary()
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except RedisError:
            self._discovery.doubt()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and see that it is the primary: what is read from a replica may be old, and is no error."""
        await super().on_connect_check_health(check_health)
        await self.send_command("ROLE", check_health=False)
        # Whose ACL forbids the question learns it from the first write.
        with suppress(ResponseError):
            role, *_ = await self.read_response()
            if role != "master":
                what = f"{self.host}:{self.port} was said to be the primary, and is a replica"
                raise ElsewhereError(what, status_code="READONLY")

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply, and drop the connection where it says that another one is the primary."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            # What a replica says (Redis 6.2 wraps it inside a script), a node without the key, and one cut off.
            word = "READONLY" if "-READONLY " in str(error) else error.status_code
            if word != "READONLY" and not isinstance(error, MovedError | ClusterDownError):
                raise
            self._discovery.doubt()
            await self.disconnect(nowait=True)
            # As an error of the connection it has the command, or its pipeline, sent once more.
            raise ElsewhereError(
                f"{self.host}:{self.port} no longer is the primary: {error}", status_code=word
            ) from None


class _PrimarySSLConnection(_PrimaryConnection, SSLConnection):
    """The same over TLS."""


class _PrimaryPool(BlockingConnectionPool):
    """Connections to the primary: one that leads to an earlier primary is not used again."""

    async def ensure_connection(self, connection: Any) -> None:
        """Connect a connection that is about to be used."""
        discovery: _Discovery = self.connection_kwargs["discovery"]
        await discovery.look_again()
        # Not every earlier primary says that it is one: not while it takes writes, and not in a reply without a key.
        if (connection.host, connection.port) != discovery.latest:
            await connection.disconnect()
        await super().ensure_connection(connection)

    async def aclose(self) -> None:
        """Close all connections, those to who was asked for the primary too."""
        await super().aclose()
        await self.connection_kwargs["discovery"].aclose()


async def shortcomings(redis: Redis) -> tuple[list[str], list[str]]:
    """Say what keeps this Redis from being used at all, and what puts messages at risk: a sentence each.

    Raises redis.RedisError when it cannot be reached.
    """
    fatal: list[str] = []
    risky: list[str] = []
    info = cast("dict[str, object]", await redis.info())
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        fatal.append(f"REDIS_URL: this is Redis {version}; the bridge needs 6.2 or newer")
    if info.get("cluster_enabled") == 1 and not isinstance(redis.connection_pool, _PrimaryPool):
        strayed, is_elsewhere = await _cluster(redis)
        (fatal if is_elsewhere else risky).append(strayed)
    elif info.get("role") in {"slave", "replica"}:
        fatal.append("REDIS_URL: this Redis is a read-only replica; the bridge needs the primary")
    evicting, is_silent_loss = await _eviction(redis, info)
    if evicting:
        (fatal if is_silent_loss else risky).append(evicting)
    # While Redis reads its file, INFO says that it writes none.
    appends = await _configured(redis, "appendonly") or {"1": "yes"}.get(str(info.get("aof_enabled")), "no")
    if appends != "yes":
        risky.append(
            "Redis does not persist every write (appendonly no), so a crash of Redis loses questions; set it to yes"
        )
    elif await _configured(redis, "appendfsync") == "no":
        risky.append(
            "Redis lets half a minute pass before writes are on disk (appendfsync no), which a power failure loses; "
            "set it to always, or to everysec"
        )
    return fatal, risky


async def durability(redis: Redis) -> str:
    """Say what a Redis without shortcomings keeps when the power fails, or its primary; raises redis.RedisError."""
    costs = []
    if isinstance(redis.connection_pool, _PrimaryPool):
        least = await _configured(redis, "min-replicas-to-write") or "unknown"
        costs.append(f"a failover may cost what no replica had yet, as min-replicas-to-write is {least}")
    if await _configured(redis, "appendfsync") == "everysec":
        costs.append("a power failure may cost the last second or two (appendfsync everysec)")
    return "; ".join(["keeps every write", *costs])


def reason(error: Exception) -> str:
    """Give Redis' own word of refusal, such as OOM or NOAUTH, where it gave one, else the error's kind."""
    if isinstance(error, AuthenticationError):
        return "NOAUTH"
    if isinstance(error, ResponseError | ElsewhereError):
        return error.status_code or str(error).partition(" ")[0] or type(error).__name__
    return type(error).__name__


async def _cluster(redis: Redis) -> tuple[str, bool]:
    """Say what is wrong with naming this one node of a Cluster, and whether the keys are at another."""
    try:
        await redis.exists(PROBE)
    except MovedError:
        what = "REDIS_URL: this Redis is a node of a Cluster, and the bridge's keys are at another node"
        return f"{what}; begin it with redis+cluster:// (over TLS rediss+cluster://) instead", True
    what = "Redis is a node of a Cluster, whose keys are at another node after a failover"
    return f"{what}; begin REDIS_URL with redis+cluster:// (over TLS rediss+cluster://), which follows them", False


async def _eviction(redis: Redis, info: Mapping[str, object]) -> tuple[str, bool]:
    """Say what a full Redis would evict (empty: nothing), and whether questions are among it.

    Source: https://redis.io/docs/latest/develop/reference/eviction/.
    """
    policy = await _configured(redis, "maxmemory-policy") or str(info.get("maxmemory_policy", ""))
    limit = await _configured(redis, "maxmemory") or str(info.get("maxmemory", ""))
    if policy == "noeviction":
        return "", False
    if not policy:
        return "Redis does not say whether it evicts; see that its maxmemory-policy is noeviction", False
    if not policy.startswith("allkeys-"):
        # Unfinished work has no lifetime, so such a policy leaves it alone.
        what = f"Redis forgets what it has answered when it is full (maxmemory-policy {policy})"
        return f"{what}, so that replies are not known and an event counts twice; set it to noeviction", False
    if limit.isdigit() and int(limit):
        what = f"REDIS_URL: this Redis evicts questions in silence when it is full (maxmemory-policy {policy})"
        return f"{what}; set its maxmemory-policy to noeviction", True
    return f"Redis may evict questions (maxmemory-policy {policy}) once it has a maxmemory; set it to noeviction", False


async def _configured(redis: Redis, name: str) -> str | None:
    try:
        return cast("dict[str, str]", await redis.config_get(name)).get(name)
    except RedisError:
        # Hosted Redis often forbids CONFIG; INFO says nearly as much.
        return None


async def refusal(redis: Redis) -> str:
    """Write once, and give Redis' word of refusal, such as OOM, READONLY, MISCONF or NOREPLICAS; empty: it took it.

    Raises redis.RedisError when it cannot be reached.
    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/, Simple errors.
    """
    try:
        await redis.set(PROBE, "", ex=PROBE_SECONDS)
    except (ResponseError, AuthenticationError, ElsewhereError) as error:
        return reason(error)
    return ""
