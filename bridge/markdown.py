"""Markdown that others wrote: made harmless, divided where a reader would divide it, or read as plain text.

Pure. The text is hostile outside data in CommonMark (https://spec.commonmark.org/0.31.2/) with GFM's tables and
strikethrough; lengths are in characters. Whatever the text, nothing raises.
"""

import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_JOINER: Final = "\N{WORD JOINER}"
_ELLIPSIS: Final = "…"
# markdown-it takes quadratic time over these.
_COSTLY: Final = re.compile(r"\[|<!")
_MOST_COSTLY: Final = 500
_MOST_COSTLY_TO_TRY: Final = 45

_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_WIDTH_JOINERS: Final = re.compile(
    r"(?<=[^\x00-\x7f\s\u200c\u200d])([\u200c\u200d])[\u200c\u200d]*(?=[^\x00-\x7f\s\u200c\u200d])|[\u200c\u200d]+"
)
# Slack unescapes `&lt;` to show it and not to obey it; the joiner makes sure, however often it unescapes.
_COMMAND: Final = re.compile(
    r"(?:<|&(?:lt|LT|#0{0,5}60|#[xX]0{0,5}3[cC]);)"
    r"(?=\\?!(?:[ceghs&\\]|date)|\\?@[BUW&\\]|\\?\#[CG&\\]|&(?:\#|excl|commat|num)|[A-Za-z][\w+.-]*:[^<>\s|]*\|)"
)
_ENTITY: Final = re.compile(
    r"&(?=\#(?:(\d{1,7})|[xX]([0-9a-fA-F]{1,6}));|(?:shy|zwn?j|lrm|rlm|NoBreak|ZeroWidthSpace"
    r"|Negative(?:VeryThin|Thin|Medium|Thick)Space|ApplyFunction|af|InvisibleTimes|it|InvisibleComma|ic);)"
)
_LINK: Final = re.compile(r"\]\(|\]:|<[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_OPENER: Final = r"(?P<opener>\[|<(?=[A-Za-z][A-Za-z0-9+.-]+:))"
_OPENER_IN_TEXT: Final = re.compile(rf"(`+)(?!`).*?(?<!`)\1(?!`)|`+|\\.|{_OPENER}", re.DOTALL)
_OPENER_ANYWHERE: Final = re.compile(rf"\\.|{_OPENER}", re.DOTALL)
_ADDRESS: Final = re.compile(r"(?:[a-z][a-z0-9+.-]{0,30}:[/\\]{2}|(?=\bwww\.))([^\s/?#\\]*)", re.IGNORECASE)
_TARGET: Final = re.compile(r"(?:([a-z][a-z0-9+.-]*):)?([/\\]*)([^/?#\\]*)", re.IGNORECASE)
# A bare name is taken for a domain only under the usual endings, or under any country's with a path.
_DOMAIN: Final = re.compile(
    r"(?:[\w.+-]+@)?(?!(?:asp|ado|vb|ml)\.net$|system\.io$)"
    r"((?:[\w-]+\.)+(?:com|org|net|edu|gov|mil|int|info|biz|io|ai|app|dev|cloud"
    r"|online|site|shop|store|tech|bank|finance|pay|xyz|club|live|link|page|co|eu|us|uk|de|fr|nl|be|ch|ru|cn|jp|kr|br"
    r"|au|nz|ca|mx|es|pt|pl|cz|se|dk|fi|tv|gg|ly|xn--[\w-]+|(?!md|py|rs|sh|cc|so|ps|mm|ml|gz)[a-z]{2}(?=[:/])))"
    r"(?::\d+)?(?:[/?#]\S*)?",
    re.IGNORECASE,
)


@cache
def _parser(has_inline: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    if not has_inline:
        parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _blocks(text: str, definitions: MutableMapping[str, Any]) -> list[Token]:
    """Give a text's block tokens, whose inline tokens have no children, and add to the link definitions known."""
    return _parser(has_inline=False).parse(text, definitions)


def _children(content: str, definitions: MutableMapping[str, Any], most: int = _MOST_COSTLY) -> list[Token]:
    """Give the inline tokens of a block's content; what would take too long is taken as it is."""
    if len(_COSTLY.findall(content)) > most:
        return [Token("text", "", 0, content=content)]
    return [
        child for token in _parser(has_inline=True).parseInline(content, definitions) for child in token.children or ()
    ]


def _words(children: Iterable[Token]) -> str:
    """Give what people read of inline tokens: no marks, no targets of links, an image's alternative text."""
    breaks = {"softbreak": " ", "hardbreak": "\n"}
    return "".join(
        _words(child.children or ()) if child.type == "image" else breaks.get(child.type, child.content)
        for child in children
    )


# Harmless


def harmless(text: str) -> str:
    """Give a text that others wrote so that it can ping nobody, hides nothing, and no link claims another address.

    What is invisible or changes the direction of writing is dropped; Slack's commands
    (https://docs.slack.dev/messaging/formatting-message-text) get a word joiner, and misleading links show as they
    are written. Applied again it changes nothing. The beginning of a text that grows stays as it is but for its last
    few characters, unless it turns out to mislead.
    """
    text = re.sub("\r\n|[\r\u2028\u2029]", "\n", text)
    text = _INVISIBLE.sub("", re.sub("[\ud800-\udfff]", "\ufffd", text))
    text = _WIDTH_JOINERS.sub(r"\1", text)
    text = _ENTITY.sub(_shown_entity, text)
    return _without_misleading_links(_COMMAND.sub(rf"\g<0>{_JOINER}", text))


def _shown_entity(match: re.Match[str]) -> str:
    """Break an entity of a character that would have been dropped, so that it shows as it is written."""
    code = int(match[1]) if match[1] else int(match[2], 16) if match[2] else 0x200C
    char = chr(code) if code < 0x110000 else ""
    return f"&{_JOINER}" if _INVISIBLE.match(char) or char in {"\u200c", "\u200d"} else "&"


def _without_misleading_links(text: str) -> str:
    if not _LINK.search(text):
        return text
    # The first pass spares code spans; where that was wrong, the next does not.
    for pattern in (_OPENER_IN_TEXT, _OPENER_ANYWHERE, _OPENER_ANYWHERE):
        places = _misleading(text)
        if not places:
            break
        lines = text.split("\n")
        for first, end in sorted(places, reverse=True):
            source = pattern.sub(lambda match: "\\" * bool(match["opener"]) + match[0], "\n".join(lines[first:end]))
            lines[first:end] = source.split("\n")
        text = "\n".join(lines)
    return text


def _misleading(text: str) -> set[tuple[int, int]]:
    """Give the lines (first, end) of each block of text that holds a misleading link."""
    definitions: dict[str, Any] = {}
    tokens = _blocks(text, definitions)
    return {
        (token.map[0], token.map[1])
        for token in tokens
        if token.type == "inline" and token.map and _misleads(token.content, definitions)
    }


def _misleads(content: str, definitions: MutableMapping[str, Any]) -> bool:
    if not _LINK.search(content) and not (definitions.get("references") and "]" in content):
        return False
    if len(_COSTLY.findall(content)) > _MOST_COSTLY:
        return True
    return any(is_misleading(label, target) for label, target in links(_children(content, definitions)))


def links(children: Iterable[Token]) -> Iterator[tuple[str, str]]:
    """Give the label, as people see it, and the target of each link and image among inline tokens."""
    target: str | None = None
    label: list[Token] = []
    for child in children:
        if child.type == "image":
            yield _words(child.children or ()), str(child.attrs.get("src", ""))
        if child.type == "link_open":
            target, label = str(child.attrs.get("href", "")), []
        elif child.type == "link_close" and target is not None:
            yield _words(label), target
            target = None
        else:
            label.append(child)


def is_misleading(label: str, target: str) -> bool:
    """Tell whether a link hides where it leads: its label names another host, or its target is no plain web address.

    Relative targets are plain. Source of the parts' names: https://www.rfc-editor.org/rfc/rfc3986#section-3.
    """
    match = _TARGET.match(target)
    scheme, slashes, authority = match.groups("") if match else ("", "", "")
    scheme = scheme.lower()
    if scheme not in {"", "http", "https", "mailto"} or ("@" in authority and scheme != "mailto"):
        return True
    host = _host(authority) if scheme or len(slashes) > 1 else ""
    label = label.strip()
    named = [match[1] for match in _ADDRESS.finditer(label)]
    bare = _DOMAIN.fullmatch(re.sub(r"^[^\w]+|[^\w/]+$", "", label))
    if bare and label != target:
        named.append(bare[1])
    return any(_host(name) != host for name in named)


def _host(authority: str) -> str:
    """Give the host that an authority (`user@host:port`) names, in the letters that targets have (punycode)."""
    host = re.sub(r"(?::\d*)?[^\w]*$", "", authority.rpartition("@")[2]).casefold().removeprefix("www.")
    return ".".join(
        part if part.isascii() else "xn--" + part.encode("punycode", "replace").decode() for part in host.split(".")
    )


# Divided


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
# Combining marks are found by `str.isidentifier`; these join their neighbours too.
_JOINING: Final = re.compile("[\u200d\ufe0e\ufe0f\u20dd-\u20e4\U0001f3fb-\U0001f3ff\udc00-\udfff]")
_FLAG: Final = re.compile("[\U0001f1e6-\U0001f1ff]{2}")
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
    tokens = _blocks("\n".join(lines), definitions)
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
    tokens = _blocks(tail[:_KNOWN], {})
    return tail if tail[:1] in {"", "\n"} or (tokens and tokens[0].type == "paragraph_open") else _JOINER + tail


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
        _words(_children(token.content, known, _MOST_COSTLY_TO_TRY)) if token.type == "inline" else token.content
        for token in _blocks(text, known)
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
    return "".join(_words(_children(text, window.definitions, _MOST_COSTLY_TO_TRY)).split())


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
        at = _between(window.text, window.limit - len(closing))
        opening += marks + "    " * (block.kind == "code_block")
        return _Cut(at, at, block.frame, closing, opening, is_midline=True, has_gap=False)
    # A heading would hide number signs at its end, and a line of marks is a break only if nothing follows.
    closing = _JOINER if block.markup.startswith("#") or block.kind == "hr" else ""
    most = window.limit - len(closing)
    spaces = [match.start() for match in re.finditer(r"\s", window.text) if most // 2 < match.start() <= most]
    anywhere = (_between(window.text, most - back) for back in range(4))
    ends = list(dict.fromkeys([*spaces[:-5:-1], *anywhere]))
    kept = _keeping(window, block, ends) if block.kind in _INLINE else iter(ends)
    at = next(kept, 0)
    if not at:
        # Between letters, as the joiner is one, underscores mark nothing.
        at, closing, marks = next(end for end in ends if end < window.limit), _JOINER, marks + _JOINER
    return _Cut(at, at, block.frame, closing, marks, is_midline=True, is_text=True)


def _keeping(window: _Window, block: _Block, ends: Iterable[int]) -> Iterator[int]:
    """Give the offsets where a paragraph that is cut there still shows all that it showed, and perhaps more."""
    text, places = _places(window, block)
    # The window may end in a word.
    whole = _whole(text + _JOINER, window)[:-1]
    for end in ends:
        at = sum(place < end for place in places)
        tail = _text(text[at:], _Cut(end, end, (), is_text=True))
        left = iter(_shown(text[:at], window.definitions) + _shown(tail, window.definitions))
        if all(char in left for char in whole):
            yield end


def _between(text: str, at: int) -> int:
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


def closed(text: str) -> str:
    """Give a text to which more can be added: a fence that was left open is closed."""
    last = _blocks(f"{text}\n\nx", {})[-1]
    return f"{text}\n{last.markup}" if last.type == "fence" else text


# Read aloud


def plain(text: str, limit: int) -> str:
    """Give a text as people would read it aloud, in at most `limit` characters, with `…` at the end where it is cut.

    Only its first 2 * `limit` characters are looked at.
    """
    definitions: dict[str, Any] = {}
    lines = list(_plain_lines(_blocks(text[: 2 * limit], definitions), definitions))
    shown = "\n".join(lines).strip()
    if len(shown) <= limit and not text[2 * limit :].strip():
        return shown
    return shown[: _between(shown, limit - 1)].rstrip() + _ELLIPSIS if len(shown) >= limit else f"{shown}{_ELLIPSIS}"


def _plain_lines(tokens: Sequence[Token], definitions: MutableMapping[str, Any]) -> Iterator[str]:
    """Give the lines that block tokens are read as; a list item's mark stands before its first line."""
    mark = ""
    cells: list[str] | None = None
    for token in tokens:
        line = _words(_children(token.content, definitions)) if token.type == "inline" else token.content
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
