"""Holds docs/answers.md to what the bridge really sends: each JSON there is made anew here and compared."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bridge.messages import Messages
from bridge.models import Reply, Source, Whisper
from bridge.playground.slack_rules import check_blocks, check_content
from bridge.playground.slack_view_rules import check_view
from bridge.slack import write

PAGE = Path(__file__).parent.parent / "docs" / "answers.md"
SAYS = Messages()
SOURCES = (
    Source("https://docs.example.com/tokens#", "Tokens|Rotate a token"),
    Source("https://docs.example.com/install/", "Install guide|Install guide"),
    Source("https://docs.example.com/tokens", "Tokens|Lifetime"),
    Source("https://docs.example.com/faq", "FAQ"),
)
ANSWER = (
    "Rotate it with the CLI ([Tokens](https://docs.example.com/tokens)), which you "
    "[install](https://docs.example.com/install) once:\n\n```sh\nacme tokens rotate\n```"
)


def _whole(reply: Reply) -> Any:
    [part] = write.parts(reply, SAYS)
    return part


def _stop() -> dict[str, Any]:
    [draft], [whole] = (
        write.parts(reply, SAYS)
        for reply in (Reply(ANSWER[:27], is_draft=True), Reply(ANSWER, SOURCES, is_votable=True))
    )
    return {
        "markdown_text": write.rest(draft, whole, is_draft=False),
        "blocks": write.below(whole),
        "metadata": write.metadata("1700000000.000100", 0),
    }


def made() -> dict[str, Any]:
    """Give what stands in the page, by the heading that it stands under."""
    about = {"channel": "C0123ABCD", "message": "1700000002.000200", "at": "1700000060.000300"}
    return {
        "An answer": _whole(Reply(ANSWER, SOURCES, is_votable=True)),
        "An answer that grows": _stop(),
        "An answer that grows by edits": _whole(Reply(ANSWER[:27], is_draft=True)),
        "A long answer": [
            {**part, "text": "…", "blocks": [{**part["blocks"][0], "text": "…"}, *part["blocks"][1:]]}
            for part in write.parts(Reply("word " * 3_000, SOURCES[1:2], is_votable=True), SAYS)
        ],
        "An uncertain answer": _whole(Reply("Perhaps with the CLI.", note=SAYS.uncertain, is_votable=True)),
        "Nothing found": _whole(Reply(SAYS.nothing_found, is_votable=True)),
        "An answer that broke off": _whole(Reply("Rotate it with the", note=SAYS.cut_off)),
        "No answer": _whole(Reply(SAYS.unavailable)),
        "Help": _whole(Reply(SAYS.help)),
        "Waiting": {"status": SAYS.thinking, "loading_messages": list(SAYS.loading)},
        "Waiting in line": {
            "status": SAYS.waiting.format(place=3),
            "loading_messages": [SAYS.waiting.format(place=3)],
        },
        "Thanks": write.whisper(Whisper(SAYS.thanks), SAYS),
        "A downvote by an emoji": write.whisper(Whisper(SAYS.sorry, explains="1700000002.000200"), SAYS),
        "What was wrong": write.why(SAYS, about),
    }


def written() -> dict[str, Any]:
    """Read the headings and their JSON out of the page."""
    sections = re.split(r"^#+ ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    blocks = {
        section.partition("\n")[0]: re.search(r"```json\n(.*?)\n```$", section, re.DOTALL | re.MULTILINE)
        for section in sections
    }
    return {heading: json.loads(found[1]) for heading, found in blocks.items() if found}


def test_the_page_shows_every_kind_and_no_other() -> None:
    assert list(written()) == list(made())


@pytest.mark.parametrize("heading", made())
def test_the_page_shows_what_is_sent(heading: str) -> None:
    assert written()[heading] == made()[heading]


@pytest.mark.parametrize("heading", made())
def test_slack_takes_what_the_page_shows(heading: str) -> None:
    shown = made()[heading]
    for one in shown if isinstance(shown, list) else [shown]:
        if one.get("type") == "modal":
            check_view(one)
        elif "markdown_text" in one:
            check_blocks(one["blocks"])
        elif "status" not in one:
            check_content(one, is_update=True)
