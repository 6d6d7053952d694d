"""A redis-server that writes every command to disk, to be killed and started again on the same socket and data."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from bridge import redis_client
from bridge.embedded_redis import find_server
from tests.waiting import eventually


class RedisServer:
    """One server with its files in a short temporary folder, since an address holds some 100 characters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/redis.sock?db=0"

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        """Run a server until the end of the block."""
        folder = Path(tempfile.mkdtemp(prefix="storm-"))
        server = cls(folder)
        try:
            await server.start()
            yield server
        finally:
            server.kill()
            shutil.rmtree(folder)

    async def start(self) -> None:
        """Start it, with what it had on disk, and wait until it answers."""
        arguments = ["--port", "0", "--unixsocket", f"{self._folder}/redis.sock", "--dir", str(self._folder)]
        arguments += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--logfile", "redis.log"]
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - it starts in a moment, and the binary is our own
            [str(find_server()), *arguments], stdin=subprocess.DEVNULL, env={}
        )
        await eventually(self._answers)

    def kill(self) -> None:
        """Kill it like a power switch does, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def away(self, seconds: float) -> None:
        """Kill it, and start it again after so many seconds."""
        self.kill()
        await asyncio.sleep(seconds)
        await self.start()

    async def _answers(self) -> bool:
        client = redis_client.connect(self.url)
        try:
            return bool(await client.ping())
        except (RedisConnectionError, BusyLoadingError):
            return False
        finally:
            await client.aclose()
