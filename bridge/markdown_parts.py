"""Divides Markdown into pieces where a reader would divide it, so that each is Markdown by itself.

Pure. How it is understood lives in `markdown`; how long a piece may be, its user says.
"""

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from markdown_it.token import Token

from bridge.markdown import JOINER, MOST_COSTLY_TO_TRY, between, blocks, children, words


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of the window; `frame` is what surrounds it (see `_peel`), `inside` its first line without that."""

    kind: str
    first: int
    end: int
    frame: tuple[int, ...]
    rank: int
    inside: str
    markup: str
    content: str


@dataclass(frozen=True, slots=True)
class _Window:
    """The beginning of the text, as far as a piece can reach and one character more, and what stands in it."""

    text: str
    limit: int
    lines: Sequence[str]
    starts: Sequence[int]
    blocks: Sequence[_Block]
    definitions: MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a piece ends and the next resumes (offsets), and what must be added there to close and to open again."""

    end: int
    resume: int
    frame: tuple[int, ...]
    closing: str = ""
    opening: str = ""
    is_midline: bool = False
    is_text: bool = False
    has_gap: bool = True


# Ranks of places to cut, the best first; between the second and the third are list items by their level.
_HEADING, _TOP, _NESTED, _SUBHEADING = 0, 1, 1_000, 5_000
_LEAVES: Final = frozenset({"paragraph_open", "heading_open", "fence", "code_block", "html_block", "table_open", "hr"})
_TOP_LISTS: Final = frozenset({"bullet_list_open", "ordered_list_open"})
_INLINE: Final = frozenset({"paragraph_open", "heading_open"})
_QUOTE: Final = re.compile(r" {0,3}> ?")
_ITEM: Final = re.compile(r"([ \t]*(?:[-+*]|\d{1,9}[.)]))([ \t]*)")
# After an item's mark or nothing, what follows goes on with no paragraph but its own.
_END: Final = re.compile(r"[ >]*(?:$|(?:[-+*]|\d{1,9}[.)])[ \t])")
_BLANK: Final = re.compile(r"(?: {0,3}>)*\s*")
_BLANK_LINES: Final = re.compile(r"\A(?:(?: {0,3}>)*[ \t]*\n)+")
_BLANK_QUOTE: Final = re.compile(r"(?:\n(?: {0,3}> ?)+)+\Z")
_SENTENCE: Final = re.compile(r"[.!?…؟۔][\"'”’»)\]*_~`]*(?=\s)|[。！？]")
_ENDINGS: Final = (("[", "](x)"), ("`", "`"), ("`", "``"), ("*", "*"), ("_", "_"), ("~", "~~"), ("<", ">"))
# So much of what follows a cut tells what it would be taken for; less than any piece, it is known in time.
_KNOWN: Final = 100


def split(text: str, limit: int) -> list[str]:
    """Divide a text into pieces of at most `limit` (200 or more) characters, where a reader would divide it.

    Each piece is Markdown by itself: code is closed and opened again, a table repeats its header row, nested list
    items move to the left. Only white space gives no piece. All but the last piece stay while the text grows.
    """
    text = re.sub("\r\n?", "\n", text).replace("\0", "\ufffd")
    if len(text) <= limit:
        return [text] if text.strip() else []
    pieces = []
    rest = _BLANK_LINES.sub("", text)
    while len(rest) > limit:
        cut = _cut(_look(rest[: limit + 1], limit))
        piece = rest[: cut.end].rstrip() + cut.closing
        pieces.append(piece if cut.is_midline or cut.closing else _BLANK_QUOTE.sub("", piece))
        rest = _BLANK_LINES.sub("", cut.opening + _unframed(_text(rest[cut.resume :], cut), cut))
    return [piece for piece in [*pieces, rest.rstrip()] if not _BLANK.fullmatch(piece)]


def _look(text: str, limit: int) -> _Window:
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    # Of a last line with only marks so far, nobody knows yet what it begins.
    if starts[-2] > limit // 2 and re.fullmatch(r"[-=#>|:*+~`\d.)\s]*", lines[-1]):
        lines = lines[:-1]
    definitions: dict[str, Any] = {}
    tokens = blocks("\n".join(lines), definitions)
    return _Window(text, limit, lines, starts, list(_scan(lines, tokens, limit)), definitions)


def _scan(lines: Sequence[str], tokens: Sequence[Token], limit: int) -> Iterator[_Block]:
    """Give the blocks that tokens tell of, outer ones first, with what surrounds each."""
    most_quotes = limit // 16
    frame: tuple[int, ...] = ()
    line, inside = -1, ""
    for number, token in enumerate(tokens):
        if token.type in {"blockquote_close", "list_item_close"}:
            frame = frame[:-1]
        is_container = token.type in {"blockquote_open", "list_item_open"}
        if token.map is None or not (
            is_container or token.type in _LEAVES or (token.type in _TOP_LISTS and token.level == 0)
        ):
            continue
        if token.map[0] != line:
            line = token.map[0]
            inside = _peel(lines[line], frame)[1]
        content = tokens[number + 1].content if token.type in _INLINE else token.info.strip()
        # The marks of more quotes would take too much of the next piece.
        around = frame if frame.count(0) <= most_quotes else ()
        yield _Block(token.type, line, token.map[1], around, _rank(token), inside, token.markup, content)
        if token.type == "blockquote_open":
            frame, inside = (*frame, 0), _QUOTE.sub("", inside, count=1)
        elif token.type == "list_item_open":
            width, inside = _item(inside)
            frame = (*frame, width)


def _rank(token: Token) -> int:
    if token.level == 0:
        return _HEADING if token.type == "heading_open" else _TOP
    return token.level + (_TOP if token.type == "list_item_open" else _NESTED)


def _item(line: str) -> tuple[int, str]:
    """Give the columns that a list item's content is indented by, and its first line without them."""
    match = _ITEM.match(line)
    if match is None:
        return 2, line[2:]
    marker = len(match[1].expandtabs(4))
    spaces = len(match[0].expandtabs(4)) - marker
    if 1 <= spaces <= 4 and match.end() < len(line):
        return marker + spaces, line[match.end() :]
    return marker + 1, line[match.end(1) + 1 :]


def _peel(line: str, frame: tuple[int, ...]) -> tuple[str, str, tuple[int, ...]]:
    """Take what surrounds a line off it: each list item's columns, and a quote's mark for 0.

    Gives the quote marks, the rest of the line, and as much of the frame as it has.
    """
    marks = ""
    for number, width in enumerate(frame):
        if width:
            columns, rest = _indent(line, width)
            if columns < width and line.strip():
                return marks, rest, (*frame[:number], columns) if columns else frame[:number]
            line = " " * (columns - width) + rest
        elif match := _QUOTE.match(line):
            marks, line = f"{marks}> ", line[match.end() :]
        else:
            return marks, line, frame[:number]
    return marks, line, frame


def _text(tail: str, cut: _Cut) -> str:
    """Let what follows a cut inside a text be text, whatever it looks like."""
    if not cut.is_text:
        return tail
    tail = re.sub(r"\A[ \t]*(?:\n[ \t>]*(?![\s>]))?" if 0 in cut.frame else r"\A[ \t]*(?:\n[ \t]*(?!\s))?", "", tail)
    tokens = blocks(tail[:_KNOWN], {})
    return tail if tail[:1] in {"", "\n"} or (tokens and tokens[0].type == "paragraph_open") else JOINER + tail


def _indent(line: str, most: int) -> tuple[int, str]:
    """Give how many columns a line is indented by, hardly more than `most`, and the line without them."""
    columns = at = 0
    while columns < most and line[at : at + 1] in {" ", "\t"}:
        columns += 1 if line[at] == " " else 4 - columns % 4
        at += 1
    return columns, line[at:]


def _unframed(text: str, cut: _Cut) -> str:
    """Move what follows a cut to the left by the list items around it, for as long as they last."""
    lines = text.split("\n")
    # The rest of a line stays as it is.
    done = lines[: int(cut.is_midline)]
    frame = cut.frame
    for number in range(len(done), len(lines)):
        if not frame:
            return "\n".join([*done, *lines[number:]])
        marks, line, inner = _peel(lines[number], frame)
        if inner != frame and line.strip() and cut.has_gap and done and not _END.match(done[-1]):
            # Else what comes next would go on with the paragraph.
            done.append(marks.rstrip())
        frame = inner
        done.append(marks + line if line.strip() else marks.rstrip())
    return "\n".join(done)


def _cut(window: _Window) -> _Cut:
    half = window.limit // 2
    return _border(window, half) or _inner(window, half) or _border(window, 1) or _inner(window, 1) or _raw(window)


def _border(window: _Window, least: int) -> _Cut | None:
    """Cut before the best block, the last of its kind; a heading may stand a little earlier."""
    found: dict[int, _Cut] = {}
    lines: set[int] = set()
    is_after_heading = False
    for block in window.blocks:
        start = window.starts[block.first]
        rank = _SUBHEADING if is_after_heading else block.rank
        wanted = min(least, window.limit // 3) if rank == _HEADING else least
        is_alone = is_after_heading and (block.kind != "heading_open" or least > 1)
        if block.first not in lines and wanted <= start <= window.limit and not is_alone:
            found[rank] = _Cut(start, start, block.frame, has_gap=block.kind in {"paragraph_open", "table_open"})
        lines.add(block.first)
        if block.kind in _LEAVES:
            is_after_heading = block.kind == "heading_open"
    return found[min(found)] if found else None


def _last(window: _Window) -> _Block:
    """Give the block that the window ends in; for lines without a block, such as link definitions, a made-up one."""
    leaves = [block for block in window.blocks if block.kind in _LEAVES]
    filled = max((number for number, line in enumerate(window.lines) if line.strip("> \t")), default=0)
    if leaves and leaves[-1].end > filled:
        return leaves[-1]
    first = leaves[-1].end if leaves else 0
    return _Block("", first, len(window.lines), (), 0, "", "", "")


def _inner(window: _Window, least: int) -> _Cut | None:
    """Cut inside the block that the window ends in: at a table's row, a line of code, or after a sentence or word."""
    block = _last(window)
    if block.kind in _INLINE:
        return _in_paragraph(window, block, least)
    opening, closing = _repeated(window, block)
    skipped = {"table_open": 3, "fence": 2}.get(block.kind, 1)
    for line in range(min(block.end, len(window.lines)) - 1, block.first + skipped - 1, -1):
        start = window.starts[line]
        content = _peel(window.lines[line], block.frame)[1]
        is_end = block.kind == "fence" and not content.strip(f"{block.markup[0]} ")
        if least <= start <= window.limit - len(closing) and start > len(opening) and content.strip() and not is_end:
            return _Cut(start, start, block.frame, closing, opening, has_gap=block.kind == "table_open")
    return None


def _marks(frame: tuple[int, ...]) -> str:
    return "> " * frame.count(0)


def _repeated(window: _Window, block: _Block) -> tuple[str, str]:
    """Give what opens a fence or a table again in the next piece, and what closes it in this one."""
    opening, closing, marks = "", "", _marks(block.frame)
    if block.kind == "fence":
        indent = block.inside[: len(block.inside) - len(block.inside.lstrip())]
        around = "".join(" " * width or "> " for width in block.frame)
        closing = f"\n{around}{block.markup}"
        info = block.content if len(block.content) < window.limit // 6 else ""
        # The fence that closes the code is longer than this.
        opening = f"{marks}{indent}{block.markup[: window.limit // 8]}{info}\n"
    elif block.kind == "table_open" and block.first + 1 < len(window.lines):
        delimiters = _peel(window.lines[block.first + 1], block.frame)[1]
        opening = f"{marks}{block.inside.strip()}\n{marks}{delimiters.strip()}\n"
    most = window.limit // 4
    return opening if len(opening) <= most else "", closing if len(closing) <= most else ""


def _places(window: _Window, block: _Block) -> tuple[str, list[int]]:
    """Give a paragraph's text without what surrounds it, and the offset in the window of each of its characters."""
    text = ""
    places: list[int] = []
    for number, content in enumerate(block.content.split("\n"), block.first):
        words = content.lstrip() if places else content
        start = window.starts[number] + max(0, window.lines[number].rfind(words.rstrip()))
        text += f"{words}\n"
        places += range(start, start + len(words) + 1)
    return text[:-1], places


def _shown(text: str, definitions: MutableMapping[str, Any]) -> str:
    """Give what people see of a text, without white space."""
    known = dict(definitions)
    parts = [
        words(children(token.content, known, MOST_COSTLY_TO_TRY)) if token.type == "inline" else token.content
        for token in blocks(text, known)
    ]
    return "".join("".join(parts).split())


def _in_paragraph(window: _Window, block: _Block, least: int) -> _Cut | None:
    """Cut after a sentence, else at a line, else at a space, where that leaves what people see as it is."""
    text, places = _places(window, block)
    whole = _whole(text, window)
    found: list[_Cut] = []
    # Marks take most of the time.
    tries = max(3, min(40, 200_000 // (len(text) + 20 * len(re.findall(r"[*_~`<\[]", text)))))
    for at in islice(_ends(text, places, least, window.limit), tries):
        head, tail = text[:at].rstrip(), text[at:].lstrip()
        shown = _shown(head, window.definitions) if head and tail else ""
        if not shown or shown + _shown(tail, window.definitions) != whole:
            continue
        resume = places[len(text) - len(tail)]
        opening = _marks(block.frame)
        found.append(_Cut(places[at - 1] + 1, resume, block.frame, opening=opening, is_midline=True, is_text=True))
        # What the head leaves open may be closed beyond the window.
        if all(_shown(head + end, window.definitions) == shown + end for mark, end in _ENDINGS if mark in head):
            return found[-1]
    return found[0] if found else None


def _whole(text: str, window: _Window) -> str:
    """Give what people see of a paragraph's text, which is no other block whatever it looks like."""
    return "".join(words(children(text, window.definitions, MOST_COSTLY_TO_TRY)).split())


def _ends(text: str, places: Sequence[int], least: int, most: int) -> Iterator[int]:
    """Give offsets in a paragraph's text where its head may end, the best first."""
    for pattern, count in ((_SENTENCE, 16), (re.compile(r"(?=\n)"), 8), (re.compile(r"(?= )"), 16)):
        ends = [match.end() for match in pattern.finditer(text)]
        yield from islice((end for end in reversed(ends) if end and least <= places[end - 1] + 1 <= most), count)


def _raw(window: _Window) -> _Cut:
    """Cut where nothing better is: at a space or between any two characters, with as little harm as can be."""
    block = _last(window)
    marks = _marks(block.frame)
    if block.kind in {"fence", "code_block"}:
        opening, closing = _repeated(window, block)
        at = between(window.text, window.limit - len(closing))
        opening += marks + "    " * (block.kind == "code_block")
        return _Cut(at, at, block.frame, closing, opening, is_midline=True, has_gap=False)
    # A heading would hide number signs at its end, and a line of marks is a break only if nothing follows.
    closing = JOINER if block.markup.startswith("#") or block.kind == "hr" else ""
    most = window.limit - len(closing)
    spaces = [match.start() for match in re.finditer(r"\s", window.text) if most // 2 < match.start() <= most]
    anywhere = (between(window.text, most - back) for back in range(4))
    ends = list(dict.fromkeys([*spaces[:-5:-1], *anywhere]))
    kept = _keeping(window, block, ends) if block.kind in _INLINE else iter(ends)
    at = next(kept, 0)
    if not at:
        # Between letters, as the joiner is one, underscores mark nothing.
        at, closing, marks = next(end for end in ends if end < window.limit), JOINER, marks + JOINER
    return _Cut(at, at, block.frame, closing, marks, is_midline=True, is_text=True)


def _keeping(window: _Window, block: _Block, ends: Iterable[int]) -> Iterator[int]:
    """Give the offsets where a paragraph that is cut there still shows all that it showed, and perhaps more."""
    text, places = _places(window, block)
    # The window may end in a word.
    whole = _whole(text + JOINER, window)[:-1]
    for end in ends:
        at = sum(place < end for place in places)
        tail = _text(text[at:], _Cut(end, end, (), is_text=True))
        left = iter(_shown(text[:at], window.definitions) + _shown(tail, window.definitions))
        if all(char in left for char in whole):
            yield end
