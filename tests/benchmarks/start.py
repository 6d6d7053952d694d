"""How soon a bridge is ready: from the start of its process until Slack has its socket and `/readyz` says 200."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter

from tests.benchmarks import harness, table
from tests.benchmarks.harness import Plan
from tests.benchmarks.table import Row
from tests.rig import Rig
from tests.waiting import eventually

# The bridge is built on the asynchronous half of slack-bolt, which `slack_bolt` alone does not import.
IMPORTS = ("slack_bolt", "slack_bolt.async_app")
ROUNDS, COLD_ROUNDS = 7, 3


async def _ready(rig: Rig, environment: dict[str, str]) -> float:
    """Give the seconds that a bridge takes to be ready."""
    port = harness.free_port()
    settings = rig.environment(**{**harness.UNLIMITED, "bridge_admin_port": port}) | environment
    started = perf_counter()
    async with harness.child(("-m", "bridge", "run"), settings, rig.folder), asyncio.timeout(harness.START_SECONDS):
        # Asked sooner, it would have to answer while it starts.
        await rig.slack.wait_for(lambda: rig.slack.sockets, harness.START_SECONDS)
        await eventually(lambda: _is_ready(port), harness.START_SECONDS)
        took = perf_counter() - started
    await rig.slack.wait_for(lambda: not rig.slack.sockets, harness.START_SECONDS)
    return took


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
    status = await reader.readline()
    writer.close()
    return b" 200 " in status


async def _imported(module: str, environment: dict[str, str], folder: Path) -> float:
    started = perf_counter()
    await harness.output(("-c", f"import {module}"), environment, folder)
    return perf_counter() - started


async def start(plan: Plan) -> AsyncIterator[Row]:
    """Time starts, with Python's compiled files there and without."""
    for how, count in (("", ROUNDS), (", nothing compiled before", COLD_ROUNDS)):
        bridges: list[float] = []
        floors: dict[str, list[float]] = {module: [] for module in IMPORTS}
        async with harness.worlds() as rig:
            is_cold = count == COLD_ROUNDS
            if not is_cold:
                await _ready(rig, {})
            for _ in range(1 if plan.is_quick else count):
                with tempfile.TemporaryDirectory() as nothing:
                    cold = {"PYTHONPYCACHEPREFIX": nothing, "PYTHONDONTWRITEBYTECODE": "1"} if is_cold else {}
                    for module, taken in floors.items():
                        taken.append(await _imported(module, cold, rig.folder))
                    bridges.append(await _ready(rig, cold))
        for module, taken in floors.items():
            what = f"start to ready{how}, beside import {module}"
            yield table.compared(what, "s", bridges, f"import {module}", taken, table.at_most_times(2))
