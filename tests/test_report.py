"""The operator's report: pure sums, and the way from a real question and vote to the command's output."""

import json
import re
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from bridge import journal, report
from bridge.journal import QuestionEntry, VoteEntry
from tests.rig import ADA, GENERAL, GRACE, Rig

LINK = "https://acme.slack.com/archives/C1/p1"


def question(
    *, seconds: float = 1, result: str = "answered", message: str = "m1", uncertain: bool = False, link: str = LINK
) -> QuestionEntry:
    return QuestionEntry(result, seconds, uncertain, link, (message,), at=1_700_000_000)


def vote(person: str, reaction: str, *reasons: str, message: str = "m1") -> VoteEntry:
    return VoteEntry(message, person, reaction, reasons, at=1_700_000_000)


@pytest.mark.parametrize(("span", "expected"), [("30m", 1800), ("24h", 86_400), ("7d", 604_800), (" 2w ", 1_209_600)])
def test_span_is_read_as_seconds(span: str, expected: int) -> None:
    assert report.seconds(span) == expected


@pytest.mark.parametrize("span", ["", "7", "d", "-1d", "0d", "1y", "7 d", "1.5h", "9" * 9 + "d", "٣d\n"])
def test_any_other_span_is_refused_in_words(span: str) -> None:
    with pytest.raises(ValueError, match="such as 30m"):
        report.seconds(span)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = report.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_nothing_gives_a_report_of_nothing() -> None:
    empty = report.summarise([])
    assert empty.questions == 0
    assert empty.seconds_p50 is empty.uncertain_share is None
    assert "such" not in report.table(empty, "7d")
    assert b"<svg" in report.chart([])


def test_last_word_of_each_person_counts() -> None:
    entries: list[QuestionEntry | VoteEntry] = [
        question(seconds=2),
        question(seconds=8, result="failed", message="m2", link=f"{LINK}2"),
        vote("ada", "upvote"),
        vote("ada", "downvote", "incorrect"),
        vote("grace", "downvote"),
    ]
    found = report.summarise(entries)
    assert (found.questions, found.results) == (2, {"answered": 1, "failed": 1})
    assert (found.seconds_p50, found.uncertain_share) == (2, 0)
    assert found.votes == {"downvote": 2}
    assert found.reasons == {"incorrect": 1}
    [worst] = found.worst
    assert (worst.link, worst.downvotes, worst.upvotes) == (LINK, 2, 0)
    assert f"-2 +0  {LINK}  incorrect: 1" in report.table(found, "7d")


def test_a_question_that_was_tried_again_counts_once_as_it_ended_last() -> None:
    entries = [question(result="failed"), question(link=f"{LINK}2"), question(seconds=90)]
    found = report.summarise(entries)
    assert (found.questions, found.results) == (2, {"answered": 2})


def test_vote_on_an_answer_older_than_the_report_names_its_message() -> None:
    [worst] = report.summarise([vote("ada", "downvote", message="T1:C1:9.9")]).worst
    assert worst.link == "T1:C1:9.9"


def test_chart_loads_nothing_from_elsewhere() -> None:
    drawn = report.chart([question(), vote("ada", "upvote")]).decode()
    assert "2023-11-14" in drawn
    assert not re.findall(r'(?:href|src)="(?!#)[^"]*"|url\(h|@import', drawn)


async def test_question_and_vote_reach_the_commands_output(rig: Rig, redis: Redis, tmp_path: Path) -> None:
    async with rig.bridge():
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        [answer] = await rig.answer(GENERAL, ts)
        await rig.slack.react(GRACE, GENERAL, answer["ts"], "x")
        await rig.kapa.wait_for(lambda: rig.kapa.feedback)
    asked, voted = await journal.read(redis, 0)
    assert isinstance(asked, QuestionEntry)
    assert isinstance(voted, VoteEntry)
    assert 0 <= asked.seconds < 60
    assert voted.message in asked.messages

    async def bridge_feedback(*arguments: str) -> tuple[int | None, bytes, bytes]:
        process = await create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "feedback", *arguments),
            env={"REDIS_URL": rig.redis_url},
            cwd=tmp_path,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, errors = await process.communicate()
        return process.returncode, out, errors

    code, out, errors = await bridge_feedback("--json", "--chart", "votes.svg")
    assert (code, errors.decode()) == (0, "")
    assert json.loads(out)["votes"] == {"downvote": 1}
    assert json.loads(out)["worst"][0]["link"] == asked.link
    assert b"<svg" in (tmp_path / "votes.svg").read_bytes()
    assert (await bridge_feedback("--chart", "votes.png"))[0] == 2
    assert (await bridge_feedback("--since", "soon"))[0] == 2
    code, out, errors = await bridge_feedback("--chart", "no/such/folder.svg")
    assert code == 1
    assert b"Traceback" not in errors
