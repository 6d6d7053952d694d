"""Markdown that others wrote, understood: its blocks, its words and links, and how it reads aloud.

Pure. The text is hostile outside data in CommonMark (https://spec.commonmark.org/0.31.2/) with GFM's tables and
strikethrough; lengths are in characters. Whatever the text, nothing raises. What makes it harmless lives in
`markdown_safety`, where it is divided in `markdown_parts`.
"""

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

JOINER: Final = "\N{WORD JOINER}"
ELLIPSIS: Final = "…"
# markdown-it takes quadratic time over these.
COSTLY: Final = re.compile(r"\[|<!")
MOST_COSTLY: Final = 500
MOST_COSTLY_TO_TRY: Final = 45
# Combining marks are found by `str.isidentifier`; these join their neighbours too.
_JOINING: Final = re.compile("[\u200d\ufe0e\ufe0f\u20dd-\u20e4\U0001f3fb-\U0001f3ff\udc00-\udfff]")
_FLAG: Final = re.compile("[\U0001f1e6-\U0001f1ff]{2}")


@cache
def _parser(has_inline: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    if not has_inline:
        parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def blocks(text: str, definitions: MutableMapping[str, Any]) -> list[Token]:
    """Give a text's block tokens, whose inline tokens have no children, and add to the link definitions known."""
    return _parser(has_inline=False).parse(text, definitions)


def children(content: str, definitions: MutableMapping[str, Any], most: int = MOST_COSTLY) -> list[Token]:
    """Give the inline tokens of a block's content; what would take too long is taken as it is."""
    if len(COSTLY.findall(content)) > most:
        return [Token("text", "", 0, content=content)]
    return [
        child for token in _parser(has_inline=True).parseInline(content, definitions) for child in token.children or ()
    ]


class Document:
    """A text's block tokens, and the inline tokens of any of them, each found once."""

    def __init__(self, text: str) -> None:
        self._definitions: dict[str, Any] = {}
        self._children: dict[str, list[Token]] = {}
        self.tokens: Sequence[Token] = blocks(text, self._definitions)

    @property
    def has_references(self) -> bool:
        """Whether a label in brackets may be a link, as it was defined to be."""
        return bool(self._definitions.get("references"))

    def children(self, content: str) -> list[Token]:
        """Give the inline tokens of a block's content, as `children` does."""
        if content not in self._children:
            self._children[content] = children(content, self._definitions)
        return self._children[content]


# A text is made harmless and then, in the same breath, read aloud. One that is all marks takes 10 MB.
@lru_cache(maxsize=2)
def document(text: str) -> Document:
    """Understand a text."""
    return Document(text)


def words(children: Iterable[Token]) -> str:
    """Give what people read of inline tokens: no marks, no targets of links, an image's alternative text."""
    breaks = {"softbreak": " ", "hardbreak": "\n"}
    return "".join(
        words(child.children or ()) if child.type == "image" else breaks.get(child.type, child.content)
        for child in children
    )


def links(children: Iterable[Token]) -> Iterator[tuple[str, str]]:
    """Give the label, as people see it, and the target of each link and image among inline tokens."""
    target: str | None = None
    label: list[Token] = []
    for child in children:
        if child.type == "image":
            yield words(child.children or ()), str(child.attrs.get("src", ""))
        if child.type == "link_open":
            target, label = str(child.attrs.get("href", "")), []
        elif child.type == "link_close" and target is not None:
            yield words(label), target
            target = None
        else:
            label.append(child)


def closed(text: str) -> str:
    """Give a text to which more can be added: a fence that was left open is closed."""
    last = blocks(f"{text}\n\nx", {})[-1]
    return f"{text}\n{last.markup}" if last.type == "fence" else text


def plain(text: str, limit: int) -> str:
    """Give a text as people would read it aloud, in at most `limit` characters, with `…` at the end where it is cut.

    Only its first 2 * `limit` characters are looked at.
    """
    shown = "\n".join(_plain_lines(document(text[: 2 * limit]))).strip()
    if len(shown) <= limit and not text[2 * limit :].strip():
        return shown
    return shown[: between(shown, limit - 1)].rstrip() + ELLIPSIS if len(shown) >= limit else f"{shown}{ELLIPSIS}"


def _plain_lines(document: Document) -> Iterator[str]:
    """Give the lines that a document is read as; a list item's mark stands before its first line."""
    mark = ""
    cells: list[str] | None = None
    for token in document.tokens:
        line = words(document.children(token.content)) if token.type == "inline" else token.content
        if token.type == "list_item_open":
            mark = f"{token.info}{token.markup} " if token.info else "• "
        elif token.type == "tr_open":
            cells = []
        elif cells is not None and token.type == "inline":
            cells.append(line.strip())
            continue
        elif cells is not None and token.type == "tr_close":
            line, cells = " | ".join(cells), None
        if line.strip():
            yield mark + line.strip("\n")
            mark = ""


def between(text: str, at: int) -> int:
    """Give the last offset up to `at` that parts no escape, entity or character of several code points."""
    least = max(1, at - 40)
    for place in range(at, least, -1):
        before, after = text[:place], text[place : place + 1]
        backslashes = len(before[-100:]) - len(before[-100:].rstrip("\\"))
        is_mark = after != "" and f"a{after}".isidentifier() and not re.match(r"\w", after, re.ASCII)
        is_mark = is_mark and not after.isidentifier() and not after.isdecimal()
        joins = is_mark or _JOINING.match(after) or before[-1] == "\u200d" or _FLAG.match(text[place - 1 : place + 1])
        if not joins and backslashes % 2 == 0 and not re.search(r"&\#?\w{0,31}$", before[-33:]):
            return place
    return at
