"""What the benchmarks share: both simulated worlds without limits, and what is measured beside them as a process.

A subject is a bridge or a floor; both get the same events from the same process. What is measured lives in the
benchmarks themselves.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from bridge.embedded_redis import EmbeddedRedis
from bridge.playground.kapa import Pace, SimulatedKapa
from bridge.playground.knowledge import Knowledge
from bridge.playground.slack import BOT, SimulatedSlack
from bridge.playground.slack_workspace import Channel
from tests.rig import ADA, PAGES, Rig
from tests.waiting import eventually

INSTANT: Final = Pace(0, 0)
# Nothing but the work itself limits the bridge. Its log is what it is by default, and goes nowhere.
UNLIMITED: Final = {"kapa_requests_per_minute": 0, "bridge_worker_concurrency": 2_000, "bridge_log_level": "info"}
# No more than 16 conversations of a channel are answered at once: that is no limit where they are spread so widely.
CHANNELS: Final = tuple(f"C0BENCH{number:03}" for number in range(100))
START_SECONDS: Final = 60.0
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly to measure: in so many rounds, and `is_quick` with small loads that show only that it works."""

    rounds: int
    is_quick: bool = False

    def load(self, full: int) -> int:
        """Give a load, or a tenth of it."""
        return max(1, full // 10) if self.is_quick else full


@dataclass(frozen=True, slots=True)
class Subject:
    """A process that answers, or only acknowledges, as long as its block lasts; it takes events at `port`, if any."""

    rig: Rig
    process: Process
    port: int | None = None

    def cpu_seconds(self) -> float:
        """Give the processor time that it has used.

        It has a clock (https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html), whose number is made as the
        kernel's include/linux/posix-timers_types.h does: CPUCLOCK_SCHED is 2.
        """
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def rss_bytes(self) -> int:
        """Give the memory that it holds (https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html)."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[None]:
        """Keep it on a core of its own in the block, and this process and Redis off it, where there are two."""
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        if len(cores) < 2:
            yield
            return
        redis = int((await redis_info(self.rig.redis_url, "server"))["process_id"])
        os.sched_setaffinity(self.process.pid, cores[-1:])
        for pid in (redis, 0):
            os.sched_setaffinity(pid, cores[:-1])
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)


@asynccontextmanager
async def worlds(*, pace: Pace = INSTANT) -> AsyncIterator[Rig]:
    """Serve a Slack and a Kapa without limits, and a Redis that keeps every write."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    slack, kapa = SimulatedSlack(limits=None, ack_seconds=60.0), SimulatedKapa(Knowledge(PAGES), pace=pace)
    slack.workspace.channels |= {name: Channel(name, name.lower(), "channel", {ADA, BOT.id}) for name in CHANNELS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with EmbeddedRedis(folder / "redis").own() as url, slack.serve(), kapa.serve():
            yield Rig(slack, kapa, url, folder)


@asynccontextmanager
async def bridge(rig: Rig, *arguments: str, http: bool = False, **settings: Any) -> AsyncIterator[Subject]:
    """Run a bridge on the rig until the end of the block."""
    environment = rig.environment(**{**UNLIMITED, **settings})
    port = free_port() if http else None
    if http:
        environment |= {"SLACK_SIGNING_SECRET": rig.slack.signing_secret, "BRIDGE_TRANSPORT": "http"}
        environment["BRIDGE_PORT"] = str(port)
    async with child(("-m", "bridge", "run", *arguments), environment, rig.folder) as process:
        await _connect(rig, port)
        yield Subject(rig, process, port)


@asynccontextmanager
async def floor(rig: Rig, kind: str, *, http: bool = False) -> AsyncIterator[Subject]:
    """Run the floor, `noop` or `bot`, on the rig until the end of the block."""
    environment = rig.environment() | {"SLACK_SIGNING_SECRET": rig.slack.signing_secret}
    port = free_port() if http else None
    if http:
        environment["PORT"] = str(port)
    async with child(("-m", "tests.benchmarks.floor", kind), environment, rig.folder) as process:
        await _connect(rig, port)
        yield Subject(rig, process, port)


@asynccontextmanager
async def child(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> AsyncIterator[Process]:
    """Run Python in a folder with exactly these variables, and kill it at the end of the block."""
    process = await _start(arguments, environment, folder, DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def output(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> bytes:
    """Run Python to its end, and give what it printed; raises RuntimeError where it fails."""
    process = await _start(arguments, environment, folder, PIPE)
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}")
    return printed


async def _start(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: int) -> Process:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    kept["PYTHONPATH"] = str(ROOT)
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env={**kept, **environment}, stdout=stdout, stderr=DEVNULL
    )


async def _connect(rig: Rig, port: int | None) -> None:
    """Let events go to the subject, once it is there."""
    if port is None:
        rig.slack.delivery = "socket"
        await rig.slack.wait_for(lambda: rig.slack.sockets, START_SECONDS)
        return
    await eventually(lambda: _listens(port), START_SECONDS)
    rig.slack.delivery = "http"
    rig.slack.subscribe(f"http://127.0.0.1:{port}/slack/events")


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def redis_info(url: str, section: str) -> dict[str, Any]:
    """Ask a Redis about itself."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        return await redis.info(section)


async def redis_cpu_seconds(url: str) -> float:
    """Give the processor time that a Redis has used."""
    info = await redis_info(url, "cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def say(text: str) -> None:
    """Print a line of a benchmark's output."""
    print(text, flush=True)  # noqa: T201 - a benchmark's output
