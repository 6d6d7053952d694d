"""The fault matrix: every call that a worker makes in a journey meets every fault, and the promises hold.

The calls are found by a dry run of each scenario through the gate, not listed here.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from tests.faults import scenarios
from tests.faults.gate import Action, Call
from tests.faults.lane import Lane, Scenario, recorded
from tests.faults.verdict import Evidence, verdict

LANES = 16
DRY_RUNS = 4
# A call that another order of events left out comes in another run.
TRIES = 4

Fault = tuple[Call, Action]
# The seam and the label of a call, and what happens to it.
Kind = tuple[str, str, Action]


@dataclass
class Figures:
    """What came of a scenario's cells."""

    cells: int = 0
    longest: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    came: set[Kind] = field(default_factory=set)

    def add(self, name: str, evidence: Evidence, broken: list[str], seconds: float) -> None:
        self.cells += 1
        self.longest = max(self.longest, seconds)
        wanted, shown = sum(question.parts for question in evidence.questions), len(evidence.replies)
        self.counts += Counter(
            accepted=len(evidence.questions),
            once=len(evidence.questions) * (shown == wanted),
            twice=shown > wanted,
            lost=shown < wanted,
            deaths=len(evidence.deaths),
            asks=len(evidence.asked),
        )
        self.violations += [f"{name}: {sentence}" for sentence in broken]

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"{self.cells} cells, questions accepted {counts['accepted']}, answered once {counts['once']}, answered "
            f"twice {counts['twice']}, lost {counts['lost']}, longest wait {self.longest:.1f} s, workers killed or "
            f"frozen {counts['deaths']}, Kapa asked {counts['asks']}, faults that found no call "
            f"{counts['never came']}, promises broken {len(self.violations)}"
        )


def kind(fault: Fault) -> Kind:
    call, action = fault
    return call.seam, call.label, action


@asynccontextmanager
async def lanes(redis_url: str, folder: Path, number: int = LANES) -> AsyncIterator[list[Lane]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Lane.open(redis_url, one, folder)) for one in range(number)]


async def record(lane: Lane, scenario: Scenario, figures: Figures) -> tuple[list[Fault], set[Kind]]:
    """Let the scenario run as it is, and give the calls that its journeys make, each with every fault it can meet.

    Besides, the kinds of faults that must come: at calls that are made each time.
    """
    runs: list[dict[Call, tuple[Action, ...]]] = []
    for _ in range(DRY_RUNS):
        evidence = await run(lane, scenario, {}, "without a fault", figures)
        runs.append(dict(recorded(evidence.passages, scenario)))
    # The first worker is slow to come, and may time out.
    found = [{(call, action) for call, actions in run.items() for action in actions} for run in runs[1:]]
    certain = set.intersection(*({kind(fault) for fault in faults} for faults in found))
    return sorted(set.union(*found)), certain


async def run(lane: Lane, scenario: Scenario, plan: dict[Call, Action], name: str, figures: Figures) -> Evidence:
    started = monotonic()
    evidence = await lane.run(scenario, plan)
    figures.add(name, evidence, verdict(evidence), monotonic() - started)
    return evidence


async def cell(lane: Lane, scenario: Scenario, fault: Fault, figures: Figures) -> None:
    name = f"{fault[1]} at {fault[0]}"
    for _ in range(TRIES):
        evidence = await run(lane, scenario, dict([fault]), name, figures)
        if any(one.call == fault[0] and one.action for one in evidence.passages):
            figures.came.add(kind(fault))
            return
    figures.counts["never came"] += 1


async def matrix(all_lanes: list[Lane], scenario: Scenario, faults: list[Fault]) -> Figures:
    """Run the cells, each lane taking the next; those that take long come first."""
    figures = Figures()
    waiting = deque(sorted(faults, key=lambda fault: not fault[1].startswith(("silence", "freeze", "die"))))

    async def work(lane: Lane) -> None:
        while waiting:
            await cell(lane, scenario, waiting.popleft(), figures)

    await asyncio.gather(*map(work, all_lanes))
    return figures


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.name)
async def test_the_promises_hold_whatever_fails(
    redis_url: str, tmp_path: Path, scenario: Scenario, tell: Callable[[str], None]
) -> None:
    dry = Figures()
    async with lanes(redis_url, tmp_path) as all_lanes:
        faults, certain = await record(all_lanes[0], scenario, dry)
        assert not dry.violations, dry.violations
        figures = await matrix(all_lanes, scenario, faults)
    calls = len({call for call, _ in faults})
    tell(f"fault matrix, {scenario.name}: {len(faults)} faults at {calls} calls, {figures}")
    assert not figures.violations, "\n".join(figures.violations)
    # How often a call comes depends on the order of events; that each met each of its faults does not.
    assert certain <= figures.came
