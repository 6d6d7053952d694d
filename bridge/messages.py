"""Every sentence that the bridge itself says in the chat, and how an operator replaces them.

Nothing here knows when a sentence is said; answers are Kapa's words and never come from here.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from string import Formatter
from typing import Any, cast


class MessagesError(Exception):
    """The file of sentences cannot be used; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def _label(text: str, most: int) -> str:
    """Declare a sentence that stands on a button or in a heading, and has room for so many characters."""
    return field(default=text, metadata={"most": most})


@dataclass(frozen=True, slots=True)
class Messages:
    """The sentences. Those of answers are CommonMark, all others plain text.

    `{minutes}` and `{place}` are filled in where a sentence has them. `loading` has up to ten that take turns.
    """

    thinking: str = "is thinking…"
    loading: tuple[str, ...] = ("Reading the documentation…", "Putting an answer together…")
    waiting: str = "is waiting for its turn, number {place} in line…"
    help: str = (
        "Ask me a question and I will answer it from the documentation in this thread. "
        "Reply here to carry on, and react with 👍 or 👎 to say whether an answer helped."
    )
    unavailable: str = (
        "Sorry, I could not get an answer: the answering service does not respond. Please ask again in a few minutes."
    )
    busy: str = (
        "Sorry, too many questions are being asked right now and the answering service asks us to wait. "
        "Please ask again in about {minutes} min."
    )
    nothing_found: str = "Sorry, I found nothing about this."
    refused: str = "Sorry, the answering service did not accept this question. Please rephrase it and ask again."
    too_long: str = "Sorry, this question is too long for me. Please shorten it and ask again."
    misconfigured: str = "Sorry, I cannot answer because I am not set up correctly. Please tell the person who runs me."
    failed: str = "Sorry, something went wrong on my side while answering this. Please ask again."
    cut_off: str = "_The answer broke off here. Please ask again if something is missing._"
    uncertain: str = "_I am not certain about this answer; please check it._"
    sources: str = _label("Sources", 150)
    good: str = _label("Good answer", 75)
    bad: str = _label("Bad answer", 75)
    thanks: str = "Thank you, your feedback was passed on."
    sorry: str = "Thank you, your feedback was passed on. Sorry that this did not help."
    explain: str = _label("Say what was wrong", 75)
    why: str = _label("What was wrong?", 24)
    reasons: str = "The answer…"
    incorrect: str = _label("is incorrect", 75)
    irrelevant: str = _label("is about something else", 75)
    unaddressed: str = _label("leaves my question open", 75)
    words: str = "In your own words"
    send: str = _label("Send", 24)
    skip: str = _label("Skip", 24)


MOST_CHARACTERS = 2_000
MOST_LOADING = 10
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def load(path: Path | None) -> Messages:
    """Read the sentences, those in the TOML file `path` instead of the default ones.

    Raises MessagesError with all problems at once: an unknown name, a value that is no text, an empty or too long
    sentence, a placeholder that the default sentence does not have.
    """
    if path is None:
        return Messages()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MessagesError([f"BRIDGE_MESSAGES: {path} should be a TOML file ({error})"]) from None
    known = {item.name: item for item in fields(Messages)}
    problems = [problem for name, value in given.items() if (problem := _problem(name, value, known))]
    if problems:
        raise MessagesError([f"BRIDGE_MESSAGES: {path}: {problem}" for problem in problems])
    sentences: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
    return replace(Messages(), **sentences)


def _problem(name: str, value: object, known: Mapping[str, Field[Any]]) -> str | None:
    if name not in known:
        return f"{name} is not a sentence of the bridge; there are {', '.join(known)}"
    default, most = known[name].default, known[name].metadata.get("most", MOST_CHARACTERS)
    if isinstance(default, tuple):
        return _list_problem(name, value)
    if not _is_sentence(value, most):
        return f"{name} should be a text of 1 to {most} characters"
    return _placeholder_problem(name, str(value), _PLACEHOLDER.findall(str(default)))


def _is_sentence(value: object, most: int) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= most


def _list_problem(name: str, value: object) -> str | None:
    is_list = isinstance(value, list) and 1 <= len(value) <= MOST_LOADING
    if is_list and all(_is_sentence(one, MOST_CHARACTERS) for one in cast("list[object]", value)):
        return None
    return f"{name} should be a list of 1 to {MOST_LOADING} texts of 1 to {MOST_CHARACTERS} characters"


def _placeholder_problem(name: str, value: str, allowed: Sequence[str]) -> str | None:
    if not allowed:
        used = [found for found in ("minutes", "place") if f"{{{found}}}" in value]
        return f"{name} has no {{{used[0]}}} to fill in" if used else None
    if _fills_in(value, allowed):
        return None
    return f"{name} has a brace that is no {{{allowed[0]}}}; double it to show it"


def _fills_in(sentence: str, allowed: Sequence[str]) -> bool:
    """Say whether `str.format` with what is allowed works, and does nothing but put it in."""
    try:
        found = [part[1:] for part in Formatter().parse(sentence) if part[1] is not None]
    except ValueError:
        return False
    return all(one in {(name, "", None) for name in allowed} for one in found)
