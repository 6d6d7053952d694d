"""The bridges of a storm, as real processes that are started, killed, frozen and replaced by name."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.waiting import PATIENCE

ROOT = Path(__file__).parent.parent.parent


@dataclass(slots=True, eq=False)
class Bridge:
    """One process; `exit` is known once it has ended (below 0: the number of a signal), `log` has what it logged."""

    id: str
    log: Path
    exit: asyncio.Future[int]

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self.exit.done()

    def logged(self) -> Iterator[dict[str, Any]]:
        """Give what it logged so far; a line that a kill cut in two is left out."""
        if self.log.exists():
            for line in self.log.read_text("utf-8", "replace").splitlines():
                with suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event


@dataclass(slots=True)
class Fleet:
    """All processes of a storm, and those that have ended."""

    nursery: Process
    folder: Path
    bridges: list[Bridge] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def ready(cls, folder: Path) -> AsyncIterator[Self]:
        """Get ready to start processes in `folder`; what is still alive at the end of the block is killed."""
        nursery = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.storm.nursery", cwd=ROOT, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        fleet = cls(nursery, folder)
        listening = asyncio.create_task(fleet._listen())
        try:
            yield fleet
        finally:
            if nursery.stdin is not None:
                nursery.stdin.close()
            await nursery.wait()
            await listening

    async def _listen(self) -> None:
        if self.nursery.stdout is None:
            return
        while line := await self.nursery.stdout.readline():
            said = json.loads(line)
            if "exit" in said:
                next(one for one in self.bridges if one.id == said["id"]).exit.set_result(said["exit"])
        for bridge in self.bridges:
            if bridge.is_alive:
                bridge.exit.cancel()

    def start(self, name: str, role: str, environment: Mapping[str, str], *, breakage: str = "") -> Bridge:
        """Start `bridge run --role <role>` with exactly these settings."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        id_ = f"{name}-{len(self.bridges)}"
        bridge = Bridge(id_, self.folder / f"{id_}.log", asyncio.get_running_loop().create_future())
        self.bridges.append(bridge)
        self._order(
            run=["--role", role],
            id=id_,
            env={**kept, **environment},
            folder=str(self.folder),
            log=str(bridge.log),
            breakage=breakage,
        )
        return bridge

    def signal(self, bridge: Bridge, number: signal.Signals) -> None:
        """Send a signal to a process that may have ended."""
        self._order(id=bridge.id, signal=int(number))

    def _order(self, **order: Any) -> None:
        if self.nursery.stdin is not None:
            self.nursery.stdin.write(json.dumps(order).encode() + b"\n")

    async def stopped(self, bridge: Bridge, within: float = PATIENCE) -> int:
        """Tell a process to stop, and wait until it has; give its exit status."""
        self.signal(bridge, signal.SIGTERM)
        return await asyncio.wait_for(asyncio.shield(bridge.exit), within)

    async def killed(self, bridge: Bridge, within: float = PATIENCE) -> None:
        """Kill a process, and wait until it is gone."""
        self.signal(bridge, signal.SIGKILL)
        await asyncio.wait_for(asyncio.shield(bridge.exit), within)
