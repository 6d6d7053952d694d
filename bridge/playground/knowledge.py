"""What the simulated Kapa knows: Markdown pages, cut into sections and searched with SQLite's FTS5.

An answer is put together from the sections that match best. Kapa's protocol is not known here.
"""

import re
import sqlite3
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urljoin

from markdown_it import MarkdownIt
from markdown_it.token import Token

SITE = "https://docs.example.com/"
_CHUNK = 1_200
_ANSWER_MAX = 6_000
_SECTIONS_MAX = 5
# Scored together, a title's word drowns in a text that repeats another one: bm25 flattens out with the count.
_BEST_FIRST = "SELECT rowid FROM s WHERE s MATCH ? ORDER BY 2 * bm25(s, 0.0, 1.0, 0.0) + bm25(s, 0.5, 0.0, 1.0)"
# They repeat the very questions that the page suggests, are links to the rest, speak of failures as the page's
# switches, or are pictures.
_NOT_KNOWN = frozenset({"Try it", "Read on", "The playground's weather", "Pictures"})
_LINK = re.compile(r"(?<!!)\]\((?!\w+:|#)([^)\s]+)\)")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    a about all also am an and any are as at be been but by can could did do does doing for from get give
    go goes going had happen happened happens has have he hello help hey hi how i if in into is it its
    just know like make me mean my no not of off on one or our out please she should so some tell than
    thank thanks that the their them then there these they this those to too us use very want was way we
    were what when where which who why will with work works would you your
    """,
    )
)


# People ask what is "away" or "down" where docs say that it fails or dies.
_FAILURE = ("away", "breaks", "broken", "crashes", "dies", "down", "fails", "killed", "outage", "unavailable")


@dataclass(frozen=True, slots=True)
class Section:
    """A piece of a page under one heading. `text` has no heading; `is_internal`: not for everyone."""

    page: str
    title: str
    url: str
    text: str
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in Markdown with its citations, and the sections it was found in, best first."""

    text: str
    sections: tuple[Section, ...] = ()
    is_uncertain: bool = False


class Knowledge:
    """A searchable set of Markdown pages, by their path below the site."""

    def __init__(self, pages: Mapping[str, str], left_out: Container[str] = ()) -> None:
        """Index the pages, except sections whose title is in `left_out`."""
        found = [section for path, text in pages.items() for section in split(path, text)]
        self._sections = [section for section in found if section.title not in left_out]
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        self._index.execute("CREATE VIRTUAL TABLE s USING fts5(page, title, text, tokenize='porter unicode61')")
        self._index.executemany(
            "INSERT INTO s(rowid, page, title, text) VALUES (?, ?, ?, ?)",
            [(row, one.page, one.title, one.text) for row, one in enumerate(self._sections)],
        )

    @classmethod
    def of_project(cls) -> Self:
        """Read the project's own docs: from the installed package, else from the checkout."""
        here = Path(__file__).parent
        root = here / "docs" if (here / "docs" / "README.md").exists() else here.parent.parent
        files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
        pages = {file.relative_to(root).as_posix(): file.read_text("utf-8") for file in files if file.exists()}
        return cls(pages, left_out=_NOT_KNOWN)

    def search(self, query: str, earlier: str = "") -> list[Section]:
        """Give the sections that match `query`, best first.

        `earlier` are the previous questions of the conversation: their words count for the order, but alone only
        where `query` has no words of its own.
        """
        words = _words(query) or _words(earlier)
        if not words:
            return []
        matches = {word: {row for (row,) in self._rows("SELECT rowid FROM s WHERE s MATCH ?", word)} for word in words}
        terms = " OR ".join(_quote(word) for word in dict.fromkeys([*words, *_words(earlier)]))
        ranked = [row for (row,) in self._index.execute(_BEST_FIRST, (terms,))]
        # One shared word of many is chance; half of them is about the same thing.
        enough = [row for row in ranked if 2 * sum(row in found for found in matches.values()) >= len(words)]
        return [self._sections[row] for row in enough[:_SECTIONS_MAX]]

    def _rows(self, statement: str, word: str) -> list[tuple[int]]:
        return self._index.execute(statement, (_quote(word),)).fetchall()

    def answer(self, query: str, earlier: str = "") -> Reply:
        """Answer a question from the sections that match; uncertain where none does."""
        found = self.search(query, earlier)
        if not found:
            return Reply("I could not find anything about that in the documentation.", is_uncertain=True)
        best, *others = found
        parts = [f"The documentation covers this under **{best.title}**:", _cited(best, _ANSWER_MAX)]
        other = next((one for one in others if one.url != best.url and len(one.text) < _CHUNK), None)
        if other is not None:
            parts += [f"Related, under **{other.title}**:", _cited(other, _CHUNK)]
        return Reply("\n\n".join(parts), tuple(found))


def sources(reply: Reply) -> list[dict[str, object]]:
    """Give a reply's sources as Kapa does: one for each retrieved chunk, so with duplicates; `Page|Section` titles."""
    found: list[dict[str, object]] = []
    for section in reply.sections:
        chunk = _source(section.url, f"{section.page}|{section.title}", section)
        found += [chunk] * (1 + len(section.text) // _CHUNK)
    if reply.sections:
        best = reply.sections[0]
        found.append(_source(best.url.partition("#")[0] + "#", f"{best.page}|{best.page}", best))
    return found


def _source(url: str, title: str, section: Section) -> dict[str, object]:
    return {"source_url": url, "title": title, "contains_internal_data": section.is_internal}


def split(path: str, text: str) -> list[Section]:
    """Cut a page at its headings; a section without text of its own is left out."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    lines = _unwrapped(_absolute_links(path, text.splitlines(), tokens), tokens)
    headings = [
        (token.map, _plain(tokens[number + 1]))
        for number, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map
    ]
    page = headings[0][1] if headings else path
    starts = [([0, 0], page), *headings]
    ends = [place[0] for place, _ in headings] + [len(lines)]
    url = _url(path)
    sections = []
    for (place, title), end in zip(starts, ends, strict=True):
        body = "\n".join(line for line in lines[place[1] : end] if line is not None).strip()
        if body:
            anchor = "" if title == page else f"#{_slug(title)}"
            sections.append(Section(page, title, url + anchor, body))
    return sections


def _absolute_links(path: str, lines: Sequence[str], tokens: Sequence[Token]) -> list[str]:
    """Turn links between pages into addresses of the site, in text but not in code blocks."""
    result = list(lines)
    text_lines = {line for token in tokens if token.type == "inline" and token.map for line in range(*token.map)}
    for line in text_lines:
        result[line] = _LINK.sub(lambda match: f"]({_url(urljoin(path, match[1]))})", result[line])
    return result


def _unwrapped(lines: Sequence[str], tokens: Sequence[Token]) -> list[str | None]:
    """Put each paragraph on one line, as Kapa's answers have them; a line that went into another is None."""
    result: list[str | None] = list(lines)
    for token in tokens:
        if token.type == "inline" and token.map and not lines[token.map[0]].lstrip().startswith((">", "|")):
            first, end = token.map
            result[first] = " ".join([lines[first].rstrip(), *(line.strip() for line in lines[first + 1 : end])])
            result[first + 1 : end] = [None] * (end - first - 1)
    return result


def _url(path: str) -> str:
    page, _, anchor = path.removeprefix("docs/").partition("#")
    page = page.removesuffix(".md").removesuffix("README")
    return urljoin(SITE, page) + (f"#{anchor}" if anchor else "")


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ()).strip()


def _slug(title: str) -> str:
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()))


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word for word in re.findall(r"\w+", text.lower()) if word not in _STOP_WORDS))[:50]


def _quote(word: str) -> str:
    # Quoted, a word is never FTS5 syntax; `_words` lets no quotation mark through.
    alike = _FAILURE if word in _FAILURE else (word,)
    return "(" + " OR ".join(f'"{one}"' for one in alike) + ")"


def _cited(section: Section, most: int) -> str:
    """Give a section's text, whole blocks up to about `most` characters, with its citation."""
    tokens = MarkdownIt("commonmark").enable("table").parse(section.text)
    lines = section.text.splitlines()
    blocks = [token for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    kept = [block for block in blocks if block.map and len("\n".join(lines[: block.map[1]])) <= most] or blocks[:1]
    last = kept[-1]
    end = last.map[1] if last.map else len(lines)
    text = "\n".join(lines[:end]).rstrip()
    gap = " " if last.type == "paragraph_open" else "\n\n"
    return f"{text}{gap}([{section.title}]({section.url}))"
