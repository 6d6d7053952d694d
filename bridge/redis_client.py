"""The one place that makes a client for a Redis URL, and that says whether a Redis will do, and takes writes.

What is kept in Redis lives elsewhere. The one key here:

    {bridge}:probe      written to learn whether Redis takes writes, for PROBE_SECONDS
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.inbox import TAG
from bridge.pipelining import PipeliningRedis

OLDEST: Final = (6, 2)
# A blocking read waits a second; a Redis that is silent for so long is gone.
SILENCE_SECONDS: Final = 10.0
# A burst waits its turn for a connection, and not longer than Slack waits for its 200.
MOST_CONNECTIONS: Final = 32
TURN_SECONDS: Final = 2.0
PROBE: Final = f"{TAG}:probe"
PROBE_SECONDS: Final = 60


def connect(url: str) -> Redis:
    """Make a client that speaks text. A broken idle connection is replaced once, and then an error is an error.

    Raises ValueError when the URL has options that mean nothing to the client.
    """
    over_network: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    # No health checks: redis-py's own ask for a connection while one is made, without end where Redis refuses it.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=TURN_SECONDS,
        decode_responses=True,
        protocol=2,
        socket_timeout=SILENCE_SECONDS,
        socket_connect_timeout=3,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
        client_name="bridge",
        **over_network,
    )
    try:
        # Options are not looked at before the first connection is made.
        pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
    except TypeError:
        raise ValueError("the URL has an option that does not exist") from None
    return PipeliningRedis.from_pool(pool)


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
    if info.get("role") in {"slave", "replica"}:
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
    """Say what a Redis without shortcomings keeps when the power fails; raises redis.RedisError."""
    if await _configured(redis, "appendfsync") == "everysec":
        return "keeps every write; a power failure may cost the last second or two (appendfsync everysec)"
    return "keeps every write"


def reason(error: Exception) -> str:
    """Give Redis' own word of refusal, such as OOM or NOAUTH, where it gave one, else the error's kind."""
    if isinstance(error, AuthenticationError):
        return "NOAUTH"
    if isinstance(error, ResponseError):
        return error.status_code or str(error).partition(" ")[0] or type(error).__name__
    return type(error).__name__


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
    except (ResponseError, AuthenticationError) as error:
        return reason(error)
    return ""
