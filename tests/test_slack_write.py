import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.chat import Part
from bridge.markdown_safety import harmless
from bridge.messages import Messages
from bridge.models import Reason, Reply, Source, Whisper
from bridge.playground.slack_rules import check_content
from bridge.playground.slack_view_rules import check_view
from bridge.slack import write

JOINER = "\N{WORD JOINER}"
SAYS = Messages()


def markdown(part: Part) -> str:
    [text] = [block["text"] for block in part["blocks"] if block["type"] == "markdown"]
    return str(text)


def sources_line(parts: list[Part]) -> str | None:
    lines = [block["elements"][0]["text"] for part in parts for block in part["blocks"] if block["type"] == "context"]
    assert len(lines) <= 1
    return str(lines[0]) if lines else None


def shown_sources(text: str, *sources: Source) -> str | None:
    return sources_line(write.parts(Reply(text, sources), SAYS))


def check_limits(parts: list[Part]) -> None:
    assert parts
    for part in parts:
        assert 0 < len(markdown(part)) <= 11_500
        assert 0 < len(part["text"]) <= 3_900
        # The simulated Slack refuses what Slack would.
        check_content(dict(part), is_update=True)


# Long answers with everything that could be cut in two, without drawing 60,000 characters one by one.
PIECES = st.lists(
    st.tuples(
        st.sampled_from(["word ", "\n\n", "\n", "  ", "<!channel> ", "<@U1>", "a & b < c > d ", "x" * 300, "🎉", "&"])
        | st.text(max_size=20),
        st.integers(1, 1_500),
    ),
    max_size=8,
)
LONG_TEXT = PIECES.map(lambda pieces: "".join(piece * times for piece, times in pieces)[:60_000])


@given(LONG_TEXT, st.booleans(), st.sampled_from(["", "_Not certain._"]))
@example("x" * 60_000, False, "_Not certain._")
@example("x" * 11_499, True, "")
@example("&" * 4_000, False, "")
@example(" " * 20_000 + "x", False, "")
@example(" \n ", False, "")
@example("", True, "")
def test_any_text_stays_within_the_limits_and_loses_no_word(text: str, is_draft: bool, note: str) -> None:
    parts = write.parts(Reply(text, is_draft=is_draft, note=note), SAYS)
    check_limits(parts)
    joined = "".join(markdown(part) for part in parts)
    expected = f"{harmless(text)}{note}{write.ELLIPSIS if is_draft else ''}"
    shown = "".join(joined.replace(JOINER, "").split())
    wanted = "".join(expected.replace(JOINER, "").split())
    assert shown == (wanted or write.ELLIPSIS)


@given(LONG_TEXT, st.data())
@example("x" * 11_497 + " y" * 5_000, None)
@example("x" * 11_497 + "\n\n" + "y" * 5_000, None)
@example("x" * 11_496 + "<!channel>" * 5, None)
@settings(max_examples=200)
def test_all_but_the_last_part_stay_while_the_text_grows(text: str, data: st.DataObject | None) -> None:
    near = [length for length in range(11_480, 11_515) if length <= len(text)]
    lengths = near if data is None else [data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([0, *near]))]
    whole = write.parts(Reply(text), SAYS)
    for length in lengths:
        draft = write.parts(Reply(text[:length], is_draft=True), SAYS)
        assert len(draft) <= len(whole)
        assert draft[:-1] == whole[: len(draft) - 1]


@pytest.mark.parametrize(
    ("mark", "first"),
    [
        ("\n\n", "a" * 6_000 + "\n" + "b" * 2_000 + " c"),
        ("\n", "a" * 6_000 + " " + "b" * 2_000 + " c"),
        (" ", "a" * 8_000),
        ("", "a" * 11_498),
    ],
    ids=["paragraph", "line", "word", "nothing"],
)
def test_a_text_is_divided_where_it_may_be(mark: str, first: str) -> None:
    text = first + mark + "d" * 11_498
    assert [markdown(part) for part in write.parts(Reply(text), SAYS)] == [first, "d" * 11_498]


def test_a_short_reply_is_one_message() -> None:
    assert write.parts(Reply("# Hi\n\n**there**"), SAYS) == [
        {"text": "Hi\nthere", "blocks": [{"type": "markdown", "text": "# Hi\n\n**there**"}]}
    ]


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        (Reply("So far", is_draft=True), "So far …"),
        (Reply("", is_draft=True), "…"),
        (Reply(""), "…"),
        (Reply("An answer.\n", note="_Perhaps._"), "An answer.\n\n_Perhaps._"),
        (Reply("", note="_Broken off._"), "_Broken off._"),
    ],
    ids=repr,
)
def test_what_stands_at_the_end(reply: Reply, shown: str) -> None:
    assert [markdown(part) for part in write.parts(reply, SAYS)] == [shown]


# Nobody is pinged


@pytest.mark.parametrize(
    "command",
    [
        "<!channel>",
        "<!here>",
        "<!everyone>",
        "<!here|here>",
        "<!group>",
        "<!subteam^S1|@ops>",
        "<@U1>",
        "<@W1|ann>",
        "<@B1>",
        "<#C1>",
        "<#G1|x>",
        "<<!channel>>",
    ],
)
@pytest.mark.parametrize("is_draft", [True, False])
def test_an_answer_can_ping_nobody(command: str, is_draft: bool) -> None:
    [part] = write.parts(Reply(f"Tell `{command}` and {command} of it", is_draft=is_draft, note=""), SAYS)
    assert "<" not in part["text"]
    assert not re.search(r"<[!@#][A-Za-z]", markdown(part))
    assert command.replace("<", "").rstrip(">") in markdown(part)


@given(st.text(st.sampled_from("<!@#U1Cchannelher>& |^")))
def test_no_text_can_ping(text: str) -> None:
    for part in write.parts(Reply(text), SAYS):
        assert not re.search(r"<(![ceghs]|@[UWB]|#[CG])", markdown(part))
        assert not re.search(r"[<>]", part["text"])


@pytest.mark.parametrize(
    "code",
    [
        "<!-- note -->",
        "<!DOCTYPE html>",
        "<!doctype html>",
        "if (a <!b)",
        "<@include x>",
        "#include <stdio.h>",
        "a < b",
    ],
)
def test_code_in_an_answer_stays_as_it_is(code: str) -> None:
    [part] = write.parts(Reply(f"```\n{code}\n```"), SAYS)
    assert markdown(part) == f"```\n{code}\n```"


# The fallback text


@pytest.mark.parametrize(
    ("text", "fallback"),
    [
        ("See [the page](https://d/a).", "See the page."),
        ("a < b && c", "a &lt; b &amp;&amp; c"),
        ("x" * 3_900, "x" * 3_900),
        ("x" * 3_901, "x" * 3_899 + "…"),
        ("x" * 3_896 + "&&", "x" * 3_896 + "…"),
        ("x" * 3_897 + "<b", "x" * 3_897 + "…"),
        ("x" * 3_894 + "&&", "x" * 3_894 + "&amp;…"),
    ],
    ids=lambda text: str(text)[:10] + str(len(str(text))),
)
def test_the_fallback_is_plain_and_short(text: str, fallback: str) -> None:
    assert write.fallback(text) == fallback


# Sources


def test_each_page_is_shown_once() -> None:
    line = shown_sources(
        "Text",
        Source("https://d/a", "A"),
        Source("https://d/a#", "A again"),
        Source("https://d/a/", "A again"),
        Source("https://d/a/#", "A again"),
        Source("https://d/b", "B"),
    )
    assert line == "Sources:\n1. <https://d/a|A>\n2. <https://d/b|B>"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "data:text/html,x",
        "mailto:a@b.c",
        "/a",
        "ftp://d/a",
        "https://d/a b",
        "https://d/\n<",
    ],
)
def test_what_is_no_web_address_is_skipped(url: str) -> None:
    assert shown_sources("Text", Source(url, "Bad"), Source("https://d/a", "A")) == "Sources:\n1. <https://d/a|A>"
    assert shown_sources("Text", Source(url, "Bad")) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("See https://d/a.", "a"),
        ("See [it](https://d/a) there", "a"),
        ("See [it](https://d/a/) there", "a"),
        ("See [it](https://d/a#part) there", "a"),
        ("See [it](https://d/a?x=1)", "a"),
        ("See <https://d/a>, <https://d/a-b>", "a a-b"),
        ("See https://d/a-b", "a-b"),
        ("See https://d/a/c", "a a-b"),
        ("See https://d/a.html", "a a-b"),
        ("See nothing", "a a-b"),
    ],
)
def test_only_cited_sources_are_shown_where_any_is(text: str, shown: str) -> None:
    line = shown_sources(text, Source("https://d/a/", "a"), Source("https://d/a-b", "a-b"))
    assert line is not None
    assert re.findall(r"\|([^>]+)>", line) == shown.split()


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("Install guide|Linux", "Install guide: Linux"),
        ("Page|Page", "Page"),
        ("Page|", "Page"),
        ("| |Page", "Page"),
        ("A|B|A", "A: B"),
        ("Two\nlines\tof it", "Two lines of it"),
        ("", "https://d/a"),
        ("|", "https://d/a"),
        ("x" * 200, "x" * 150),
        # Neither another address nor a hidden one.
        ("https://bank.com", "https://d/a"),
        ("www.bank.com|Log in", "https://d/a"),
        ("Pa\N{ZERO WIDTH SPACE}ge \N{RIGHT-TO-LEFT OVERRIDE}", "Page"),
    ],
)
def test_titles_are_readable(raw: str, title: str) -> None:
    assert write.title(Source("https://d/a", raw)) == title


@pytest.mark.parametrize(
    ("url", "title"),
    [
        ("https://d/a", "A> <!channel> <https://evil|A"),
        ("https://d/a|x> <!channel>", "A"),
        ("https://d/a><!channel><https://e", "A"),
        ("https://d/a", "<@U1>"),
        ("https://d/a", "a|b¦c"),
        ("https://d/a?b=<c>&d=|", "\n> quote"),
        ("https://d/a|b", ""),
    ],
)
def test_no_source_can_break_out_of_its_link(url: str, title: str) -> None:
    line = shown_sources("Text", Source(url, title))
    if line is not None:
        assert re.fullmatch(r"Sources:\n1\. <https://[^<>|\s]+\|[^<>|\n]+>", line)


@given(st.lists(st.builds(Source, st.text().map("https://d/".__add__), st.text(max_size=300)), max_size=14), st.text())
def test_any_sources_make_a_line_within_its_limit(sources: list[Source], title: str) -> None:
    parts = write.parts(Reply("Text", tuple(sources)), Messages(sources=title))
    check_limits(parts)
    line = sources_line(parts)
    if line is not None:
        assert len(re.findall(r"<https://d/[^<>|\s]*\|[^<>|]+>", line)) == line.count("<") == line.count(">") <= 10


def test_many_and_long_sources_are_cut_to_what_fits() -> None:
    line = shown_sources("Text", *(Source(f"https://d/{number}", f"T{number}") for number in range(20)))
    assert line is not None
    assert line.count("<") == 10
    line = shown_sources("Text", *(Source(f"https://d/{number}{'x' * 900}", "T") for number in range(9)))
    assert line is not None
    assert line.count("<") == 3
    assert shown_sources("Text", Source("https://d/" + "x" * 3_000, "T")) is None


def test_a_long_or_odd_heading_of_the_sources_does_no_harm() -> None:
    parts = write.parts(Reply("Text", (Source("https://d/a", "A"),)), Messages(sources="<!channel>&" * 200))
    check_limits(parts)
    assert "<!channel>" not in str(sources_line(parts))


def test_sources_stand_under_the_last_part_of_a_finished_answer_only() -> None:
    source = Source("https://d/a", "A")
    parts = write.parts(Reply("word " * 5_000, (source,)), Messages(sources="Quellen"))
    assert len(parts) == 3
    assert [len(part["blocks"]) for part in parts] == [1, 1, 2]
    assert sources_line(parts[-1:]) == "Quellen:\n1. <https://d/a|A>"
    assert sources_line(write.parts(Reply("Text", (source,), is_draft=True), Messages(sources="Quellen"))) is None


def test_sources_are_numbered_in_the_order_in_which_they_are_cited() -> None:
    found = [Source("https://d/a", "A"), Source("https://d/b#", "B"), Source("https://d/c", "C")]
    text = "First [c](https://d/c), then [b](https://d/b#part), and [c](https://d/c) again."
    assert shown_sources(text, *found) == "Sources:\n1. <https://d/c|C>\n2. <https://d/b#|B>"
    assert shown_sources("Nothing cited", *found[:2]) == "Sources:\n1. <https://d/a|A>\n2. <https://d/b#|B>"


# What people can press


def test_an_answer_asks_for_a_vote_under_its_last_part_alone() -> None:
    parts = write.parts(Reply("word " * 5_000, (Source("https://d/a", "A"),), is_votable=True), SAYS)
    assert [[block["type"] for block in part["blocks"]] for part in parts] == [
        ["markdown"],
        ["markdown"],
        ["markdown", "context", "context_actions"],
    ]
    check_limits(parts)
    [buttons] = parts[-1]["blocks"][-1]["elements"]
    assert (buttons["type"], buttons["action_id"]) == ("feedback_buttons", write.FEEDBACK)
    assert [buttons[f"{kind}_button"]["value"] for kind in ("positive", "negative")] == ["upvote", "downvote"]


def test_long_sources_under_a_long_answer_stay_within_the_room_of_a_message() -> None:
    found = tuple(Source(f"https://d/{number}{'x' * 250}", f"Page {number}") for number in range(10))
    parts = write.parts(Reply("word " * 2_290, found, is_votable=True), SAYS)
    check_limits(parts)
    assert [[block["type"] for block in part["blocks"]] for part in parts] == [
        ["markdown"],
        ["markdown", "context", "context_actions"],
    ]


def test_a_note_stands_outside_of_code_that_broke_off() -> None:
    [part] = write.parts(Reply("See:\n\n```py\nx = 1", note="_It broke off._"), SAYS)
    assert markdown(part) == "See:\n\n```py\nx = 1\n```\n\n_It broke off._"


def test_neither_a_draft_nor_a_sentence_of_the_bridge_asks_for_a_vote() -> None:
    for reply in (Reply("Text", is_draft=True, is_votable=True), Reply("Sorry.")):
        assert [block["type"] for part in write.parts(reply, SAYS) for block in part["blocks"]] == ["markdown"]


def test_a_whisper_offers_to_explain_where_it_is_about_an_answer() -> None:
    assert write.whisper(Whisper("Thanks & bye <!here>"), SAYS) == {
        "text": "Thanks &amp; bye &lt;!here&gt;",
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "Thanks &amp; bye &lt;!here&gt;"}}],
    }
    shown = write.whisper(Whisper("Sorry", explains="1.2"), SAYS)
    assert shown["blocks"][0]["accessory"]["action_id"] == write.EXPLAIN
    assert shown["blocks"][0]["accessory"]["value"] == "1.2"
    check_content(shown)


def test_the_modal_has_kapas_three_boxes_and_room_for_words() -> None:
    modal = write.why(SAYS, {"channel": "C1", "message": "1.2", "at": "1.3", "thread": "1.1"})
    check_view(modal)
    boxes, words = modal["blocks"]
    assert [option["value"] for option in boxes["element"]["options"]] == [reason.value for reason in Reason]
    assert boxes["optional"] is words["optional"] is True


# What a stream shows of it


@pytest.mark.parametrize(
    ("shown", "now", "is_draft", "rest"),
    [
        ("So far", "So far, so good", True, ", so good"),
        ("So far", "So far", True, ""),
        ("So far", "Something else", True, None),
        ("So far", "So", True, None),
        ("So far", "So far, so good", False, ", so good"),
        ("So far", "So far …", False, " …"),
        ("So far", "So far\n\n_Perhaps._", False, "\n\n_Perhaps._"),
    ],
)
def test_what_is_still_to_be_shown(shown: str, now: str, is_draft: bool, rest: str | None) -> None:
    [before], [part] = (
        write.parts(Reply(text, is_draft=draft), SAYS) for text, draft in ((shown, True), (now, is_draft))
    )
    assert write.growing(before) == shown
    assert write.rest(before, part, is_draft=is_draft) == rest


@given(LONG_TEXT, st.data())
@settings(max_examples=100)
def test_a_stream_shows_what_the_answer_is(text: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(text)))
    draft, whole = (write.parts(Reply(one, is_draft=one is not text), SAYS) for one in (text[:length], text))
    if (
        length < len(text)
        and len(draft) == len(whole) == 1
        and (rest := write.rest(draft[0], whole[0], is_draft=False))
    ):
        assert write.growing(draft[0]) + rest == markdown(whole[0])


@pytest.mark.parametrize("is_votable", [True, False])
def test_what_slack_refuses_becomes_plainer(is_votable: bool) -> None:
    [part] = write.parts(Reply("**Text**", (Source("https://d/a", "A"),), is_votable=is_votable), SAYS)
    forms = write.plainer(part)
    assert forms[-1] == {"text": "Text"}
    kinds = [[block["type"] for block in form["blocks"]] for form in forms[:-1]]
    assert kinds == [["markdown", "context"], ["markdown"]][not is_votable :]
    assert write.plainer({"text": "Text"}) == []


# Metadata


@given(st.text(), st.integers(0, 100))
def test_metadata_comes_back(question: str, number: int) -> None:
    assert write.read_metadata({"metadata": write.metadata(question, number)}) == (question, number)


@pytest.mark.parametrize(
    "message",
    [
        None,
        "text",
        {},
        {"metadata": None},
        {"metadata": "kapa_answer"},
        {"metadata": {}},
        {"metadata": {"event_type": "kapa_answer"}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": None}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": []}},
        {"metadata": {"event_type": "other", "event_payload": {"question": "1.2", "part": 0}}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": {"question": 1.2, "part": 0}}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": {"question": "1.2"}}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": {"question": "1.2", "part": "0"}}},
        {"metadata": {"event_type": "kapa_answer", "event_payload": {"question": "1.2", "part": True}}},
    ],
    ids=repr,
)
def test_other_metadata_names_nothing(message: Any) -> None:
    assert write.read_metadata(message) is None
