import re
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bridge.markdown import links, plain
from bridge.markdown_parts import split
from bridge.markdown_safety import harmless, is_misleading

JOINER = "\N{WORD JOINER}"
PARSER = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
LIMITS = st.integers(200, 600)


def words(children: Iterable[Token]) -> str:
    return "".join(words(child.children or ()) if child.type == "image" else child.content for child in children)


def shown(text: str) -> str:
    """Give what people see of a text, without white space."""
    seen = "".join(words(token.children or [token]) for token in PARSER.parse(text))
    return "".join(seen.replace(JOINER, "").split())


def contains(whole: str, part: str) -> bool:
    """Tell whether the characters of a part come in the whole, in order."""
    left = iter(whole)
    return all(char in left for char in part)


def check_pieces(text: str, limit: int) -> list[str]:
    pieces = split(text, limit)
    for piece in pieces:
        assert 0 < len(piece) <= limit
        if len(pieces) > 1:
            assert piece.strip()
            assert not re.match(r"[ \t]*\n", piece)
            assert piece == piece.rstrip()
    return pieces


def check_growth(text: str, limit: int, lengths: Iterable[int]) -> None:
    whole = split(text, limit)
    for length in lengths:
        draft = split(text[:length], limit)
        assert draft[:-1] == whole[: max(0, len(draft) - 1)], length


# Answers as Kapa writes them, made of blocks


TEXT_WORDS = [
    "Install",
    "the",
    "package",
    "first",
    "then",
    "run",
    "it",
    "again",
    "größer",
    "日本語",
    "שלום",
    "مرحبا",
    "👩‍👩‍👧",
]
CODE_WORDS = ["def", "main():", "print(x)", "if", "x:", "{", "}", "# note", "- no", "1. no", "> no", "| no |", "**x**"]
INLINE = st.one_of(
    st.sampled_from(TEXT_WORDS),
    st.sampled_from(TEXT_WORDS),
    st.sampled_from(
        [
            "**very bold words**",
            "_slanted words_",
            "`code span`",
            "~~gone~~",
            "[a link](https://docs.x.io/a?b=c&d=e)",
            "![a picture](https://docs.x.io/a.png)",
            "<https://docs.x.io/>",
            "&amp;",
            r"\*",
            "e.g.",
            "snake_case_name",
            "2 * 3",
            "a < b",
        ]
    ),
)
SENTENCE = st.lists(INLINE, min_size=2, max_size=14).map(lambda words: "The " + " ".join(words) + ".")
PARAGRAPH = st.lists(SENTENCE, min_size=1, max_size=5).flatmap(
    lambda sentences: st.sampled_from([" ", "\n"]).map(lambda by: by.join(sentences))
)
HEADING = st.tuples(st.integers(1, 4), st.sampled_from(TEXT_WORDS)).map(lambda pair: "#" * pair[0] + " " + pair[1])
CODE_LINES = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from(CODE_WORDS), max_size=6)).map(
        lambda pair: "    " * pair[0] + " ".join(f"{word}~" for word in pair[1])
    ),
    min_size=1,
    max_size=14,
)
FENCE = st.tuples(st.sampled_from(["```", "~~~", "````"]), st.sampled_from(["", "python", "go"]), CODE_LINES).map(
    lambda parts: "\n".join([parts[0] + parts[1], *parts[2], parts[0]])
)
TABLE = st.lists(st.lists(st.sampled_from(TEXT_WORDS), min_size=3, max_size=3), min_size=1, max_size=20).map(
    lambda rows: "\n".join(["| A | B | C |", "|:--|---|--:|", *(f"| {' | '.join(row)} |" for row in rows)])
)


def indented(text: str, prefix: str, first: str) -> str:
    lines = text.split("\n")
    return "\n".join([first + lines[0], *((prefix + line).rstrip() for line in lines[1:])])


def listed(items: list[str], is_ordered: bool) -> str:
    marks = [f"{number}. " if is_ordered else "- " for number in range(1, len(items) + 1)]
    return "\n".join(indented(item, " " * len(mark), mark) for item, mark in zip(items, marks, strict=True))


def lists(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(st.lists(items, min_size=1, max_size=4), st.booleans()).map(lambda pair: listed(*pair))


def with_text(blocks: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SENTENCE, st.sampled_from(["\n", "\n\n"]), blocks).map("".join)


ONE = lists(SENTENCE | with_text(FENCE) | st.tuples(PARAGRAPH, PARAGRAPH).map("\n\n".join))
TWO = lists(SENTENCE | with_text(ONE))
THREE = lists(SENTENCE | with_text(TWO))
QUOTE = (PARAGRAPH | ONE | TWO | FENCE | TABLE).map(lambda text: indented(text, "> ", "> "))
BLOCKS = st.one_of(HEADING, PARAGRAPH, PARAGRAPH, FENCE, TABLE, ONE, TWO, THREE, QUOTE, st.just("---"))
ANSWER = st.lists(BLOCKS, min_size=2, max_size=10).map("\n\n".join)
MARKS = st.sampled_from(
    re.split(
        "·",
        "\n·\n\n· ·  ·    ·\t·- ·1. ·7) ·> ·# ·```·~~~·`·**·_·|·---·| - | - |·\n```py\n·\\·&amp;·&·[·](·)·](https://x.io)"
        "·<·>·<div>·<!-- ·===·e\u0301·👩‍👧·🇩🇪",
    )
)
ANY_TEXT = st.lists(st.tuples(MARKS | st.text(max_size=8), st.integers(1, 60)), max_size=30).map(
    # A line that is longer than a piece cannot be told from the beginning of a fence, so there are fewer ticks.
    lambda parts: "".join(part * (times if len(part) < 3 or times < 9 else 1) for part, times in parts)[:3_000]
)


@given(ANSWER, LIMITS)
@settings(max_examples=250, deadline=None)
def test_an_answer_is_divided_without_loss(text: str, limit: int) -> None:
    pieces = check_pieces(text, limit)
    assert contains("".join(map(shown, pieces)), shown(text))


@given(ANSWER, LIMITS)
@settings(max_examples=250, deadline=None)
def test_each_piece_of_an_answer_stands_by_itself(text: str, limit: int) -> None:
    for piece in check_pieces(text, limit):
        lines = piece.split("\n")
        for token in PARSER.parse(piece):
            if token.type in {"fence", "code_block"}:
                assert all(re.search(r"~|^\s*$", line) for line in token.content.split("\n") if line), piece
            if token.type == "fence":
                assert token.map
                assert lines[token.map[1] - 1].strip("> ") == token.markup, piece
            if token.type == "inline":
                assert not re.search("def~|main|print|note~|no~", token.content), piece
            if token.type == "tr_open":
                assert token.map
                assert re.sub(r"[^|]", "", lines[token.map[0]]).count("|") == 4
            if token.type == "inline":
                assert "|" not in token.content, piece


@given(ANSWER, LIMITS, st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_of_an_answer_stay_while_it_grows(text: str, limit: int, data: st.DataObject) -> None:
    check_growth(text, limit, data.draw(st.lists(st.integers(0, len(text)), max_size=12)))


@given(ANY_TEXT, LIMITS, st.data())
@settings(max_examples=300, deadline=None)
def test_pieces_of_any_text_stay_while_it_grows(text: str, limit: int, data: st.DataObject) -> None:
    check_pieces(text, limit)
    check_growth(text, limit, data.draw(st.lists(st.integers(0, len(text)), max_size=12)))


@given(ANY_TEXT, LIMITS)
@settings(max_examples=300, deadline=None)
def test_no_word_of_any_text_is_lost(text: str, limit: int) -> None:
    pieces = check_pieces(text, limit)
    # The lines of raw HTML are read as Markdown in the next piece.
    assume(not any(token.type == "html_block" for token in PARSER.parse(text)))
    # A run of marks at a cut may become markup.
    assert contains("".join(map(shown, pieces)), "".join(filter(str.isalnum, shown(text))))


def test_a_text_that_fits_stays_as_it_is() -> None:
    assert split("# Hi\n\n**there**\n", 200) == ["# Hi\n\n**there**\n"]
    assert split("", 200) == split(" \n\n ", 200) == split(" \n" * 500, 200) == []
    assert split("\n" * 500 + "x" + " " * 500, 200) == ["x"]


S = "A sentence of forty letters or somewhat."
P = " ".join([S] * 3)
LINES = "code\n" * 20
ROWS = f"| {S} | b |\n" * 3


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (f"{P}\n\n# Head\n\n{P}", [P, f"# Head\n\n{P}"]),
        (f"{S}\n{S}\n\n## Head\n\n{S}\n\n{P}", [f"{S}\n{S}", f"## Head\n\n{S}\n\n{P}"]),
        (f"{P}\n\n## Head\n\n```\n{LINES}```", [P, f"## Head\n\n```\n{LINES}```"]),
        (f"{P}\n\n{S}\n\n{P}", [f"{P}\n\n{S}", P]),
        (f"- {S}\n" * 8, ["\n".join([f"- {S}"] * 4)] * 2),
        (f"1. {S}\n   - {P}\n2. {P}", [f"1. {S}\n   - {P}", f"2. {P}"]),
        (f"9. {S}\n   - {S}\n     - {S}\n     - {S}\n     - {P}", [
            f"9. {S}\n   - {S}\n     - {S}\n     - {S}", f"- {P}"]),
        (f"- {S}\n  - {S}\n    - {S}\n    - {S}\n      - {S}\n    - {S}\n  - {S}\n- {S}\n  - {S}", [
            f"- {S}\n  - {S}\n    - {S}",
            f"- {S}\n  - {S}\n- {S}\n- {S}",
            f"- {S}\n  - {S}",
        ]),
        (f"1. {P}\n\n   {P}\n2. {S}", [f"1. {P}", f"{P}\n\n2. {S}"]),
        (f"1. {P} {P}\n2. {S}", [f"1. {P} {S}", f"{S} {S}\n\n2. {S}"]),
        (f"> {P} {P}\n> {S}", [f"> {P} {S}", f"> {S} {S}\n> {S}"]),
        (f"> {P}\n>\n> - {S}\n>   - {P}", [f"> {P}", f"> - {S}\n>   - {P}"]),
        (f"| A | B |\n|:--|--:|\n{ROWS}{ROWS}", [
            f"| A | B |\n|:--|--:|\n{ROWS}"] * 2),
        (f"{S}\n{S}\n{S}\n{S}\n{S}", [f"{S}\n{S}\n{S}\n{S}", S]),
        ("word " * 50, [("word " * 40).strip(), ("word " * 10).strip()]),
        ("x" * 250, ["x" * 200, "x" * 50]),
        ("x" * 200 + "\n\n    code", ["x" * 200, "    code"]),
        (f"{S} " * 3 + "**" + "bold " * 20 + "**", [f"{S} {S} {S}", "**" + "bold " * 20 + "**"]),
        (f"{S} " * 3 + "[" + "a link. " * 20 + "](https://x)", [P, "[" + "a link. " * 20 + "](https://x)"]),
        ("x" * 199 + " - " + "word " * 20, ["x" * 199, JOINER + "- " + "word " * 20]),
        (f"    code {S}\n" * 5, [f"    code {S}\n" * 3, f"    code {S}\n" * 2]),
        ("x" * 199 + r"\*" + "y" * 30, ["x" * 199, r"\*" + "y" * 30]),
        ("x" * 197 + "&amp;" + "y" * 30, ["x" * 197, "&amp;" + "y" * 30]),
        ("x" * 197 + "👩‍👩‍👧" + "y" * 30, ["x" * 197, "👩‍👩‍👧" + "y" * 30]),
        ("x" * 199 + "🇩🇪" + "y" * 30, ["x" * 199, "🇩🇪" + "y" * 30]),
        ("x" * 199 + "e\u0301" + "y" * 30, ["x" * 199, "e\u0301" + "y" * 30]),
        ("x" * 199 + "👍🏽" + "y" * 30, ["x" * 199, "👍🏽" + "y" * 30]),
    ],
    ids=range(27),
)  # fmt: skip
def test_a_text_is_divided_where_a_reader_would(text: str, pieces: list[str]) -> None:
    assert split(text, 200) == [piece.rstrip() for piece in pieces]


CODE = {
    "python": "def main() -> None:\n    for number in range(10):\n        print(number)",
    "go": 'func main() {\n\tfor i := 0; i < 10; i++ {\n\t\tfmt.Println("i", i)\n\t}\n}',
    "rust": 'fn main() {\n    let text: &\'static str = "x";\n    println!("{text}");\n}',
    "typescript": "const names: Array<string> = [`a`, 'b'];\nexport default names;",
    "bash": '# Not a heading\nfor name in *.txt; do\n  echo "$name" | wc -c\ndone',
}


@pytest.mark.parametrize("around", ["", "> ", "   ", "  > "], ids=["alone", "quoted", "listed", "both"])
@pytest.mark.parametrize("language", CODE)
def test_code_is_closed_and_opened_again(language: str, around: str) -> None:
    code = "\n".join([CODE[language]] * 5)
    fence = f"```{language} title\n{code}\n```"
    start = {"   ": "1. First:\n", "  > ": "- First:\n"}.get(around, "")
    text = start + "\n".join(around + line for line in fence.split("\n"))
    pieces = check_pieces(text, 200)
    assert len(pieces) > 1
    fences = [token for piece in pieces for token in PARSER.parse(piece) if token.type == "fence"]
    assert {token.info for token in fences} == {f"{language} title"}
    assert "".join(token.content for token in fences) == f"{code}\n"
    assert not any(token.type == "code_block" for piece in pieces for token in PARSER.parse(piece))


RIGHT_TO_LEFT = {
    "arabic": "مرحبا بكم في دليل التثبيت. هل تريد المتابعة؟ نعم، تابع القراءة.",
    "hebrew": "שלום וברוכים הבאים למדריך. האם להמשיך? כן.",
    "persian": "می\u200cخواهم کتاب\u200cها را بخوانم. آیا می\u200cتوانم؟",
    "emoji": "The 👩‍👩‍👧‍👦 family and ❤️‍🔥 and 🏳️‍🌈 and 👍🏽.",
}


@pytest.mark.parametrize("language", RIGHT_TO_LEFT)
def test_all_scripts_stay_whole(language: str) -> None:
    text = " ".join([RIGHT_TO_LEFT[language]] * 30)
    assert harmless(text) == text
    pieces = check_pieces(text, 250)
    assert " ".join(pieces) == text
    assert all(piece.endswith((".", "؟", "?")) for piece in pieces)


def test_a_long_document_is_divided_as_its_reader_would() -> None:
    section = f"## Part\n\n{P}\n\n- {S}\n  - {S}\n    1. {S}\n\n"
    section += f"| A | B |\n|---|---|\n| 1 | 2 |\n\n```go\n{CODE['go']}\n```\n\n"
    text = (section * (30_000 // len(section) + 1))[:30_000]
    pieces = check_pieces(text, 11_500)
    assert len(pieces) == 3
    assert all(piece.startswith("## Part") for piece in pieces)
    assert "".join(map(shown, pieces)) == shown(text)


HOSTILE = {
    "brackets": "[" * 60_000,
    "link ends": "[" * 30_000 + "](" * 15_000,
    "images": "![" * 30_000,
    "spaced brackets": "x [" * 20_000,
    "quotes": "> " * 30_000,
    "ticks": "`" * 60_000,
    "many ticks": "".join("`" * length + " " for length in range(1, 340)),
    "backslashes": "\\" * 60_000,
    "entities": "&" * 60_000,
    "emphasis": "*a *" * 15_000,
    "marks": "- " * 30_000,
    "deep quotes": "> " * 95 + "x" * 30_000,
    "deep and tight quotes": ">" * 95 + "a b " * 10_000,
    "deep code": ("> " * 40 + "```go title\n" + ("> " * 40 + "a\u0301" * 90 + "\n") * 100),
    "nested lists": "\n".join("  " * level + "- x" for level in range(240)),
    "deep text": "".join("  " * level + "- x\n" for level in range(95)) + ("  " * 95 + "y z\n") * 300,
    "a long row": "|a|b|\n|-|-|\n|" + "word " * 9_000 + "|x|\n|c|d|",
    "wide rows": "|a" * 10_000 + "\n" + "|-" * 10_000 + "\n" + "|b" * 10_000,
    "an info string": "```" + "i" * 20_000 + "\ncode" * 5_000,
    "a long fence": "`" * 11_000 + "\n" + "code\n" * 8_000,
    "definitions": "[a]: b\n" * 8_000,
    "comment": "<!--\n" + "x\n" * 30_000,
    "data": "a <![CDATA[ " * 5_000,
    "html": "<div>\n" * 10_000,
    "families": "👩\u200d" * 30_000,
    "flags": "🇩🇪" * 30_000,
    "marked letters": "a\u0301" * 30_000,
    "only marks": "\u0301" * 60_000,
    "tabs": "\t" * 60_000,
    "a long label": "[" + "a." * 30_000 + "](https://evil.com)",
    "commands": "<a:" * 20_000,
    "headings": "# a\n" * 15_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "function", [harmless, lambda text: check_pieces(text, 11_500), lambda text: plain(text, 3_900)]
)
def test_hostile_text_takes_no_time(function: Callable[[str], object], name: str) -> None:
    began = time.process_time()
    function(HOSTILE[name])
    assert time.process_time() - began < 3


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_divided_within_any_limit(name: str) -> None:
    check_pieces(HOSTILE[name][:6_000], 200)


# Harmless


@pytest.mark.parametrize(
    "command",
    ["<!channel>", "<!here|here>", "<!everyone>", "<!group>", "<!subteam^S1|@ops>", "<!date^1^x|y>", "<@U1>", "<@W1|a>",
     "<@B1>", "<#C1>", "<#G1|x>", r"<\!channel>", "<&#33;channel>", "<!&#99;hannel>", "<https://evil.com|https://bank.com>",
     "<mailto:a@b.c|d>"],
)  # fmt: skip
@pytest.mark.parametrize("less", ["<", "&lt;", "&LT;", "&#60;", "&#x3C;", "<<"])
def test_commands_of_slack_are_broken(command: str, less: str) -> None:
    text = less + command[1:]
    assert harmless(text) == f"{less}{JOINER}{command[1:]}"
    assert harmless(f"`{text}`") == f"`{less}{JOINER}{command[1:]}`"


@pytest.mark.parametrize(
    "text",
    ["<!-- note -->", "<!DOCTYPE html>", "<!doctype html>", "if (a <!b)", "<@include x>", "#include <stdio.h>", "a < b",
     "<https://docs.x.io>", "&lt;b&gt;", "a && b", "&#39;", "&nbsp;", "|a|b|\n|-|-|\n|c|d|", "❤️ 1️⃣", "שלום", "a\tb\n"],
)  # fmt: skip
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\ne"),
        ("a\x00\x08\x0b\x1b\x7f\x85\x9fb", "ab"),
        ("\ud800x\udfff", "\ufffdx\ufffd"),
        ("a\u202eb\u2066c\u200ed\u061ce", "abcde"),
        ("a\u200bb\ufeffc\u00add\u2060e\u3164f\U000e0041g\ufff9h", "abcdefgh"),
        ("a\u200db", "ab"),
        ("ab\u200c", "ab"),
        ("می\u200c\u200c\u200dخواهم", "می\u200cخواهم"),
        ("می\u200c خ", "می خ"),
        ("a&#8238;b&rlm;c&#x200B;d", f"a&{JOINER}#8238;b&{JOINER}rlm;c&{JOINER}#x200B;d"),
    ],
)
def test_what_hides_is_dropped(text: str, safe: str) -> None:
    assert harmless(text) == safe
    assert harmless(safe) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("[https://bank.com](https://evil.com)", r"\[https://bank.com](https://evil.com)"),
        ("Go to [**bank**.com/login](https://evil.com)!", r"Go to \[**bank**.com/login](https://evil.com)!"),
        ("[www.bank.io](https://evil.com)", r"\[www.bank.io](https://evil.com)"),
        ("[Log in at https://bank.com now](https://evil.com)", r"\[Log in at https://bank.com now](https://evil.com)"),
        ("[https://bank.com](https://bank.com.evil.com)", r"\[https://bank.com](https://bank.com.evil.com)"),
        ("[Docs](https://bank.com@evil.com)", r"\[Docs](https://bank.com@evil.com)"),
        ("<https://bank.com@evil.com>", r"\<https://bank.com@evil.com>"),
        ("[Docs](tel:1)", r"\[Docs](tel:1)"),
        ("[Docs](slack://open)", r"\[Docs](slack://open)"),
        ("[bank.com](//evil.com)", r"\[bank.com](//evil.com)"),
        ("[bank.com](/login)", r"\[bank.com](/login)"),
        ("[a@bank.com](mailto:a@evil.com)", r"\[a@bank.com](mailto:a@evil.com)"),
        ("![bank.com](https://evil.com/a.png)", r"!\[bank.com](https://evil.com/a.png)"),
        ("[![bank.com](/a.png)](https://evil.com)", r"\[!\[bank.com](/a.png)](https://evil.com)"),
        ("[bank.com]\n\n[bank.com]: https://evil.com", "\\[bank.com]\n\n[bank.com]: https://evil.com"),
        ("[bank.com][x]\n\n[x]: https://evil.com", "\\[bank.com]\\[x]\n\n[x]: https://evil.com"),
        ("> - [bank.com](//evil.com) `a[0]`\n\n[D](/a)", "> - \\[bank.com](//evil.com) `a[0]`\n\n[D](/a)"),
        ("|a|\n|-|\n|[bank.com](https://evil.com)|", "|a|\n|-|\n|\\[bank.com](https://evil.com)|"),
        ("<http://x`y> [bank.com](https://evil.com) `", r"\<http://x`y> [bank.com](https://evil.com) `"),
        ("[bank&#46;com](https://evil.com)", r"\[bank&#46;com](https://evil.com)"),
    ],
)  # fmt: skip
def test_misleading_links_show_as_they_are_written(text: str, safe: str) -> None:
    assert harmless(text) == safe
    assert harmless(safe) == safe
    assert not misleading(harmless(text))


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("README.md", "https://github.com/x/README.md"),
        ("node.js", "https://nodejs.org"),
        ("next.config.js", "https://nextjs.org"),
        ("setup.py", "https://docs.python.org"),
        ("e.g.", "https://x.io"),
        ("ASP.NET", "https://learn.microsoft.com"),
        ("v1.2.3", "https://x.io"),
        ("numpy.array", "https://numpy.org"),
        ("the page", "https://x.io"),
        ("src/main.rs", "https://x.io"),
        ("https://X.io/a", "https://x.io/b"),
        ("x.io", "https://www.x.io"),
        ("https://x.io:443/", "https://x.io"),
        ("bänk.de", "https://xn--bnk-qla.de"),
        ("a@x.io", "mailto:a@x.io"),
        ("docs", "/docs/a"),
        ("docs", "#a"),
        ("", "https://x.io"),
    ],
)
def test_plain_links_stay(label: str, target: str) -> None:
    assert not is_misleading(label, target)
    assert harmless(f"See [{label}]({target}).") == f"See [{label}]({target})."


def misleading(text: str) -> list[tuple[str, str]]:
    return [pair for token in PARSER.parse(text) for pair in links(token.children or ()) if is_misleading(*pair)]


SPOOFS = st.lists(
    st.sampled_from(
        re.split(
            "·",
            "[·]·(·)·](·]: ·<·>·`·``·\\·!·\n·\n\n· ·> ·- ·|·*·&lt;·&#8238;·bank.com·https://bank.com·www.bank.com"
            "·https://evil.com·https://a@evil.com·x·<!channel>·<@U1>·<#C1>·\u202e·\u200d·\u200b·\x1b·א"
            "·[bank.com](https://evil.com)·[x]: https://evil.com\n·[x]",
        )
    )
    | st.text(max_size=3),
    max_size=30,
).map("".join)


@given(SPOOFS)
@example("[a <!channel `](https://evil.com) `>bank.com](https://evil.com)")
@example("[bank.com]\n: x\n\n[bank.com]:\nhttps://evil.com")
@settings(max_examples=1_000, deadline=None)
def test_nothing_is_left_that_pings_misleads_or_hides(text: str) -> None:
    safe = harmless(text)
    assert harmless(safe) == safe
    assert not re.search(r"(<|&lt;)(!([ceghs]|date)|@[BUW]|#[CG]|https?:[^<>\s|]*\|)", safe)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\ufeff\ud800-\udfff]", safe
    )
    assert not misleading(safe)
    for token in PARSER.parse(safe):
        assert not re.search("[\u202a-\u202e]", words(token.children or [])), safe


@given(ANSWER, st.data())
@settings(max_examples=60, deadline=None)
def test_ordinary_text_stays_as_it_is_while_it_grows(text: str, data: st.DataObject) -> None:
    assert harmless(text) == text
    length = data.draw(st.integers(0, len(text)))
    assert text.startswith(harmless(text[:length]))


# Read aloud


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("See [the page](https://d/a) and **this** _one_ ~~not~~ `x*y`.", "See the page and this one not x*y."),
        ("# Head\n\nText\nmore\n\n## Next", "Head\nText more\nNext"),
        ("- a\n- b\n  - c\n\n3. d\n4. e", "• a\n• b\n• c\n3. d\n4. e"),
        ("- [ ] a\n\n  b", "• [ ] a\nb"),
        ("|A|B|\n|-|-|\n|1|**2**|", "A | B\n1 | 2"),
        ("```py\nx = 1\n\ny = 2\n```\n\n    z", "x = 1\n\ny = 2\nz"),
        ("> quoted\n\n---\n\n![a cat](/c.png)", "quoted\na cat"),
        ("a\\\nb &amp; &lt;c&gt;", "a\nb & <c>"),
        ("", ""),
        ("- ```\n  x\n  ```", "• x"),
    ],
)
def test_a_text_is_read_aloud(text: str, read: str) -> None:
    assert plain(text, 1_000) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 9 + "…"),
        ("x" * 100, "x" * 9 + "…"),
        ("word word word", "word word…"),
        ("x" * 8 + "👩‍👧", "x" * 8 + "…"),
        ("# x\n\n" + "\n" * 50 + "y", "x…"),
        ("x" + " " * 50, "x"),
    ],
    ids=range(7),
)
def test_what_is_too_long_to_read_aloud_is_cut(text: str, read: str) -> None:
    assert plain(text, 10) == read


@given(ANSWER | ANY_TEXT, st.integers(1, 400))
@settings(max_examples=100, deadline=None)
def test_what_is_read_aloud_is_short(text: str, limit: int) -> None:
    assert len(plain(text, limit)) <= limit
