"""Bridges broken on purpose: the fault matrix' verdict finds each of them out, and nothing in the whole one."""

from pathlib import Path

import pytest

from tests.faults.gate import KAPA, SLACK, Action, Call
from tests.faults.lane import Lane, Scenario
from tests.faults.scenarios import RESUMED, WHOLE
from tests.faults.verdict import verdict

POST = Call(SLACK, "chat.postMessage", 1)
CHAT = Call(KAPA, "projects/*/chat", 1)
# For each variant a cell that it breaks, and what the verdict says of it.
CELLS: dict[str, tuple[Scenario, dict[Call, Action], str]] = {
    "no look-up before posting again": (WHOLE, {POST: Action.DIE_AFTER}, "1 visible messages were expected"),
    "no lease check": (WHOLE, {CHAT: Action.FREEZE_AFTER}, "1 visible messages were expected"),
    "the answer is not stored before it is shown": (WHOLE, {POST: Action.DIE_AFTER}, "asked again once"),
    "what is shown is not remembered": (RESUMED, {}, "is mapped to"),
}


@pytest.mark.parametrize("variant", CELLS)
async def test_a_broken_bridge_is_found_out(redis_url: str, tmp_path: Path, variant: str) -> None:
    scenario, plan, sentence = CELLS[variant]
    for built in ("whole", variant):
        async with Lane.open(redis_url, 0, tmp_path, built) as lane:
            # A first cell without a fault, so that the one that counts meets a worker that is up.
            await lane.run(WHOLE)
            evidence = await lane.run(scenario, plan)
            broken = verdict(evidence)
        assert {one.call for one in evidence.passages if one.action} >= set(plan)
        if built == "whole":
            assert broken == []
        else:
            assert any(sentence in one for one in broken), broken
