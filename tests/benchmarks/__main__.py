"""Runs the benchmarks: `python -m tests.benchmarks [NAME…] [--rounds N] [--quick] [--write]`."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from tests.benchmarks import acknowledgement, added, answers, costs, decoding, harness, memory, start, table
from tests.benchmarks.harness import ROOT, Plan, say
from tests.benchmarks.table import Row

BENCHMARKS: Final[Mapping[str, Callable[[Plan], AsyncIterator[Row]]]] = {
    "acknowledgement": acknowledgement.acknowledgement,
    "intake": acknowledgement.intake,
    "added": added.added,
    "first-text": added.first_text,
    "decoding": decoding.decoding,
    "throughput": answers.throughput,
    "at-once": answers.at_once,
    "crowd": answers.crowd,
    "memory": memory.memory,
    "start": start.start,
    "costs": costs.costs,
}
ROUNDS: Final = 5
PAGE: Final = ROOT / "docs" / "performance.md"
CHART: Final = ROOT / "docs" / "images" / "performance.svg"


async def run(names: Sequence[str], plan: Plan) -> list[Row]:
    """Run benchmarks, and print each figure as soon as it is there."""
    rows: list[Row] = []
    for name in names:
        started = monotonic()
        say(f"\n{name}")
        async for row in BENCHMARKS[name](plan):
            rows.append(row)
            say(f"  {table.lines([row])[0]}")
        say(f"  ({monotonic() - started:.0f} s)")
    return rows


async def _redis_version() -> str:
    async with harness.worlds() as rig:
        return str((await harness.redis_info(rig.redis_url, "server"))["redis_version"])


def write(rows: Sequence[Row], machine: str, rounds: int, page: Path = PAGE, picture: Path = CHART) -> None:
    """Put the figures into the page, and draw the chart beside it."""
    head = f"`make bench`, {rounds} rounds, on {machine}:"
    text = table.replaced(page.read_text("utf-8"), "figures", f"{head}\n\n{table.markdown(rows)}")
    page.write_text(text, "utf-8")
    picture.write_bytes(table.chart(rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure the bridge.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)}; all by default"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each figure is taken (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="small loads in one round, to see that all of it works")
    parser.add_argument("--write", action="store_true", help=f"put the figures of all into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if arguments.write and (arguments.names or arguments.quick):
        parser.error("--write is for a whole run")
    return arguments


def main() -> None:
    """Run what the command line names."""
    arguments = _arguments()
    started = monotonic()
    plan = Plan(1 if arguments.quick else arguments.rounds, is_quick=arguments.quick)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        machine = table.machine(runner.run(_redis_version()))
        say(f"{machine}; {plan.rounds} rounds")
        rows = runner.run(run(arguments.names or list(BENCHMARKS), plan))
    missed = sum(row.is_met is False for row in rows)
    say(f"\n{len(rows)} figures in {monotonic() - started:.0f} s, {missed} miss their aim")
    if arguments.write:
        write(rows, machine, plan.rounds)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop's loop, as the bridge has it, where it runs."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - it has no build for every platform

    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
