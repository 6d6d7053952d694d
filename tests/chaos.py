"""The long kill storm: `python -m tests.chaos --seconds 600 --seed 1` rages, prints its figures, and fails on a broken
promise. Without a seed it takes one at random, and says which.
"""

import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bridge import log
from tests.storm.conductor import Storm, World
from tests.storm.judge import Verdict
from tests.storm.plan import plan

SETTLE_SECONDS = 120.0


async def storm(seed: int, seconds: float, folder: Path) -> Verdict:
    """Let one storm rage, with the logs of all bridges in `folder`."""
    timetable = plan(seed, seconds)
    async with World.around(folder, kapa_requests_per_minute=timetable.kapa_per_minute) as world:
        return await Storm(world, timetable).rage(SETTLE_SECONDS)


def main(
    seed: Annotated[int | None, typer.Option(help="What happens follows from it.")] = None,
    seconds: Annotated[float, typer.Option(min=10, help="How long the storm rages.")] = 600,
    logs: Annotated[Path | None, typer.Option(help="A folder that keeps what the bridges log.")] = None,
) -> None:
    """Kill the bridge's processes and its Redis at random under load, and judge what comes of it."""
    log.configure("console", "warning")
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    typer.echo(f"seed {chosen}, {seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        verdict = asyncio.run(storm(chosen, seconds, (logs or Path(folder)).resolve()))
    for promise in verdict.broken:
        typer.echo(promise, err=True)
    typer.echo(f"seed {chosen}: {verdict.line()}")
    raise typer.Exit(int(bool(verdict.broken)))


if __name__ == "__main__":
    typer.run(main)
