"""The operator's report: what people asked, and what they thought of the answers. Pure: from entries to words.

Where the entries come from lives in `journal`; what is printed where, in `cli`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from bridge.journal import QuestionEntry, VoteEntry
from bridge.models import Reaction

WORST: Final = 10
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True, slots=True)
class Worst:
    """An answer that people voted down, with the permalink of its question."""

    link: str
    downvotes: int
    upvotes: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """What happened since a time. Seconds are from question to finished answer; None where nothing was answered.

    Votes are the last word of each person on each answer.
    """

    questions: int
    results: Mapping[str, int]
    seconds_p50: float | None
    seconds_p95: float | None
    uncertain_share: float | None
    votes: Mapping[str, int]
    reasons: Mapping[str, int]
    worst: Sequence[Worst]

    def as_dict(self) -> dict[str, Any]:
        """Give the report as JSON wants it."""
        return asdict(self)


def seconds(span: str) -> int:
    """Read a span of time such as `30m`, `24h`, `7d` or `2w` as seconds; raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,5})([mhdw])", span.strip())
    if not found or int(found[1]) == 0:
        raise ValueError("it should be a number and a unit, such as 30m, 24h, 7d or 2w")
    return int(found[1]) * _UNITS[found[2]]


def summarise(entries: Sequence[QuestionEntry | VoteEntry]) -> Report:
    """Sum the entries, oldest first, up."""
    questions = last_endings(entries)
    answered = [entry for entry in questions if entry.result == "answered"]
    votes = last_words(entries)
    return Report(
        questions=len(questions),
        results=dict(Counter(entry.result for entry in questions)),
        seconds_p50=percentile([entry.seconds for entry in answered], 0.50),
        seconds_p95=percentile([entry.seconds for entry in answered], 0.95),
        uncertain_share=sum(entry.is_uncertain for entry in answered) / len(answered) if answered else None,
        votes=dict(Counter(vote.reaction for vote in votes)),
        reasons=dict(Counter(reason for vote in votes for reason in vote.reasons)),
        worst=_worst(questions, votes),
    )


def last_endings(entries: Sequence[QuestionEntry | VoteEntry]) -> list[QuestionEntry]:
    """Give how each question ended last: one that was a dead letter may have been answered since."""
    questions = [entry for entry in entries if isinstance(entry, QuestionEntry)]
    return list({question.link: question for question in questions}.values())


def last_words(entries: Sequence[QuestionEntry | VoteEntry]) -> list[VoteEntry]:
    """Give the last vote of each person on each message."""
    votes = [entry for entry in entries if isinstance(entry, VoteEntry)]
    return list({(vote.message, vote.person): vote for vote in votes}.values())


def percentile(values: Sequence[float], share: float) -> float | None:
    """Give the smallest value that at least `share` of the values do not exceed; None of none."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)] if values else None


def _worst(questions: Sequence[QuestionEntry], votes: Sequence[VoteEntry]) -> list[Worst]:
    link_of = {message: question.link for question in questions for message in question.messages}
    on_answer: dict[str, list[VoteEntry]] = {}
    for vote in votes:
        # An answer that is older than the report has no entry in it: its message is named instead.
        on_answer.setdefault(link_of.get(vote.message, vote.message), []).append(vote)
    found = [
        Worst(
            link=link,
            downvotes=sum(vote.reaction == Reaction.DOWNVOTE for vote in cast),
            upvotes=sum(vote.reaction == Reaction.UPVOTE for vote in cast),
            reasons=dict(Counter(reason for vote in cast for reason in vote.reasons)),
        )
        for link, cast in on_answer.items()
    ]
    bad = [worst for worst in found if worst.downvotes]
    return sorted(bad, key=lambda worst: (worst.upvotes - worst.downvotes, worst.link))[:WORST]


def table(report: Report, span: str) -> str:
    """Give the report as lines of text."""
    rows = [
        (f"Questions in the last {span}", str(report.questions)),
        *((f"  {result}", str(count)) for result, count in sorted(report.results.items())),
        ("Time to the answer, median", _as_seconds(report.seconds_p50)),
        ("Time to the answer, 95 of 100", _as_seconds(report.seconds_p95)),
        ("Uncertain answers", "-" if report.uncertain_share is None else f"{report.uncertain_share:.0%}"),
        ("Upvotes", str(report.votes.get(Reaction.UPVOTE, 0))),
        ("Downvotes", str(report.votes.get(Reaction.DOWNVOTE, 0))),
        *((f"  {reason}", str(count)) for reason, count in sorted(report.reasons.items())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value:>8}" for name, value in rows]
    if report.worst:
        lines += ["", "Answers that were voted down most:"]
        lines += [f"  -{worst.downvotes} +{worst.upvotes}  {worst.link}{_why(worst)}" for worst in report.worst]
    return "\n".join(lines)


def _as_seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _why(worst: Worst) -> str:
    return "".join(f"  {reason}: {count}" for reason, count in sorted(worst.reasons.items()))


def chart(entries: Sequence[QuestionEntry | VoteEntry]) -> bytes:
    """Draw questions and votes a day, as an SVG that loads nothing from elsewhere."""
    import pygal  # noqa: PLC0415 - it hooks itself into every later import

    days = sorted({_day(entry.at) for entry in entries})
    votes = last_words(entries)
    asked = Counter(_day(question.at) for question in last_endings(entries))
    bars = pygal.Bar(title="Questions and votes a day (UTC)", js=[], legend_at_bottom=True, x_label_rotation=45)
    bars.x_labels = days
    bars.add("questions", [asked[day] for day in days])
    for reaction in Reaction:
        cast = Counter(_day(vote.at) for vote in votes if vote.reaction == reaction)
        bars.add(f"{reaction}s", [cast[day] for day in days])
    return bytes(bars.render())


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
