"""Every sentence that the bridge itself says in the chat, and how an operator replaces them.

Nothing here knows when a sentence is said; answers are Kapa's words and never come from here.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from string import Formatter


class MessagesError(Exception):
    """The file of sentences cannot be used; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Messages:
    """The sentences, as CommonMark. `{minutes}` and the like are filled in where a sentence has them."""

    thinking: str = "is thinking…"
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
    sources: str = "Sources"


def load(path: Path | None) -> Messages:
    """Read the sentences, those in the TOML file `path` instead of the default ones.

    Raises MessagesError with all problems at once: an unknown name, a value that is no text, an empty sentence,
    a placeholder that the default sentence does not have.
    """
    if path is None:
        return Messages()
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise MessagesError([f"BRIDGE_MESSAGES: {path} should be a TOML file ({error})"]) from None
    known = {item.name: str(item.default) for item in fields(Messages)}
    problems = [problem for name, value in given.items() if (problem := _problem(name, value, known))]
    if problems:
        raise MessagesError([f"BRIDGE_MESSAGES: {path}: {problem}" for problem in problems])
    return replace(Messages(), **given)


def _problem(name: str, value: object, known: dict[str, str]) -> str | None:
    if name not in known:
        return f"{name} is not a sentence of the bridge; there are {', '.join(known)}"
    if not isinstance(value, str) or not value.strip() or len(value) > 2_000:
        return f"{name} should be a text of 1 to 2000 characters"
    if "{minutes}" in known[name]:
        return None if _fills_in_minutes(value) else f"{name} has a brace that is no {{minutes}}; double it to show it"
    return f"{name} has no {{minutes}} to fill in" if "{minutes}" in value else None


def _fills_in_minutes(sentence: str) -> bool:
    """Say whether `sentence.format(minutes=…)` works, and does nothing but put the number in."""
    try:
        fields = [found[1:] for found in Formatter().parse(sentence) if found[1] is not None]
    except ValueError:
        return False
    return all(found == ("minutes", "", None) for found in fields)
