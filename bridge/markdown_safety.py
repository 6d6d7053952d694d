"""Makes Markdown that others wrote harmless: it can ping nobody, hides nothing, and no link claims another address.

Pure. How it is understood lives in `markdown`.
"""

import re
from functools import lru_cache
from typing import Final

from bridge.markdown import COSTLY, JOINER, MOST_COSTLY, Document, document, links

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


@lru_cache(maxsize=64)
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
    return _without_misleading_links(_COMMAND.sub(rf"\g<0>{JOINER}", text))


def _shown_entity(match: re.Match[str]) -> str:
    """Break an entity of a character that would have been dropped, so that it shows as it is written."""
    code = int(match[1]) if match[1] else int(match[2], 16) if match[2] else 0x200C
    char = chr(code) if code < 0x110000 else ""
    return f"&{JOINER}" if _INVISIBLE.match(char) or char in {"\u200c", "\u200d"} else "&"


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
    found = document(text)
    return {
        (token.map[0], token.map[1])
        for token in found.tokens
        if token.type == "inline" and token.map and _misleads(token.content, found)
    }


def _misleads(content: str, found: Document) -> bool:
    if not _LINK.search(content) and not (found.has_references and "]" in content):
        return False
    if len(COSTLY.findall(content)) > MOST_COSTLY:
        return True
    return any(is_misleading(label, target) for label, target in links(found.children(content)))


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
