"""Reads the lines of Redis' MONITOR: when, by whom, and the command's words. Pure.

What the commands mean is `redis_watch`'s business. Form: https://redis.io/docs/latest/commands/monitor/ .
"""

import json
import re
from dataclasses import dataclass

_LINE = re.compile(r'(?P<at>[0-9]+\.[0-9]+) \[[0-9]+ (?P<by>.*?)\] (?P<words>".*)', re.DOTALL)
_WORD = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `is_inside` one that a script ran. `at` is Redis' own time in Unix seconds."""

    at: float
    is_inside: bool
    words: list[str]

    @property
    def name(self) -> str:
        """The command's name in small letters."""
        return self.words[0].lower()

    def word(self, number: int) -> str:
        """Give a word by its number, counted from 0 or, below it, from the end; empty where there is none."""
        return self.words[number] if -len(self.words) <= number < len(self.words) else ""

    def keys_and_args(self) -> tuple[list[str], list[str]]:
        """Give the keys and the arguments of an EVALSHA."""
        count = int(self.words[2])
        return self.words[3 : 3 + count], self.words[3 + count :]


def command_of(text: str) -> Command | None:
    """Read one line of MONITOR; None for what is none."""
    match = _LINE.fullmatch(text)
    if match is None:
        return None
    words = [_unescaped(word) for word in _WORD.findall(match["words"])]
    return Command(float(match["at"]), match["by"] == "lua", words)


def _unescaped(word: str) -> str:
    """Give a word as it was sent: MONITOR writes every byte that is not printable ASCII as an escape."""
    if "\\" not in word:
        return word
    return _ESCAPE.sub(_character, word).encode("latin-1", "replace").decode("utf-8", "replace")


def _character(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 3 else _CONTROLS.get(code, code)


def line_of(key: str) -> str:
    """Give the line that a line's key names."""
    return key.partition(":line:")[2]


def noted(entry: str) -> str:
    """Give the id of the item that stands in a line as this entry."""
    try:
        return str(json.loads(entry)[0])
    except (ValueError, LookupError, TypeError):
        return ""
