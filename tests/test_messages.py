import re
import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from bridge.messages import Messages, MessagesError, load

DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"
NAMES = [field.name for field in fields(Messages) if field.name != "loading"]
# Where Slack has little room.
LABELS = {"why": 24, "send": 24, "skip": 24, "good": 75, "bad": 75, "explain": 75, "incorrect": 75}


def written(text: str | bytes) -> Path:
    path = Path("sentences.toml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(MessagesError) as raised:
        load(written(text))
    assert str(raised.value) == "\n".join(raised.value.problems)
    assert all(problem.startswith("BRIDGE_MESSAGES: sentences.toml") for problem in raised.value.problems)
    return raised.value.problems


def test_without_a_file_the_sentences_are_the_bridge_s_own() -> None:
    assert load(None) == Messages()
    assert all("".join(text).strip() for text in asdict(Messages()).values())


def test_an_empty_file_changes_nothing() -> None:
    assert load(written("")) == Messages()


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_is_replaced_and_the_others_stay(name: str) -> None:
    assert asdict(load(written(f'{name} = "Ünïcode 🎉"'))) == asdict(Messages()) | {name: "Ünïcode 🎉"}


def test_several_lines_are_a_sentence_too() -> None:
    assert load(written('help = """\nOne.\n\nTwo."""')).help == "One.\n\nTwo."


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("Ask again in {minutes} min.", "Ask again in 3 min."),
        ("Ask again later.", "Ask again later."),
        ("{minutes} or {minutes}", "3 or 3"),
        ("{{minutes}} is {minutes}", "{minutes} is 3"),
    ],
)
def test_the_minutes_are_filled_in(sentence: str, said: str) -> None:
    assert load(written(f'busy = "{sentence}"')).busy.format(minutes=3) == said


def test_the_place_in_line_is_filled_in() -> None:
    assert load(written('waiting = "waits as {place}."')).waiting.format(place=3) == "waits as 3."
    assert "waiting has a brace" in problems('waiting = "waits {minutes} min"')[0]
    assert "help has no {place} to fill in" in problems('help = "you are {place}"')[0]


def test_the_sentences_that_take_turns_are_a_list() -> None:
    assert load(written('loading = ["One…", "Two…"]')).loading == ("One…", "Two…")
    for wrong in ('"One"', "[]", '[""]', "[7]", str(["x"] * 11)):
        assert "loading should be a list of 1 to 10 texts" in problems(f"loading = {wrong}")[0]


@pytest.mark.parametrize(("name", "most"), LABELS.items())
def test_a_label_has_the_room_that_slack_gives_it(name: str, most: int) -> None:
    assert getattr(load(written(f'{name} = "{"x" * most}"')), name) == "x" * most
    assert problems(f'{name} = "{"x" * (most + 1)}"')[0].endswith(f"should be a text of 1 to {most} characters")


@pytest.mark.parametrize(
    "sentence",
    [
        "in {seconds}",
        "in {}",
        "in {0}",
        "in {minutes.real}",
        "in {minutes[0]}",
        "in {minutes!r}",
        "in {minutes:>9}",
        "in {minutes:{minutes}}",
        "in {minutes",
        "in minutes}",
    ],
)
def test_other_braces_in_a_sentence_that_is_filled_in_are_refused(sentence: str) -> None:
    [problem] = problems(f'busy = "{sentence}"')
    assert "busy has a brace" in problem


def test_braces_elsewhere_are_braces() -> None:
    assert load(written('help = "Write {like} {{this}} }"')).help == "Write {like} {{this}} }"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('greeting = "Hi"', "greeting is not a sentence of the bridge; there are thinking, loading"),
        ('help = ""', "help should be a text of 1 to 2000 characters"),
        ('help = "  "', "help should be a text"),
        (f'help = "{"x" * 2_001}"', "help should be a text"),
        ("help = 7", "help should be a text"),
        ('help = ["a"]', "help should be a text"),
        ('[help]\nx = "a"', "help should be a text"),
        ('help = "in {minutes} min"', "help has no {minutes} to fill in"),
        ("help", "should be a TOML file"),
        ("help = Hi", "should be a TOML file"),
        ('help = "a"\nhelp = "b"', "should be a TOML file"),
        (b'help = "\xff"', "should be a TOML file"),
    ],
)
def test_what_cannot_be_used_is_refused(text: str | bytes, part: str) -> None:
    [problem] = problems(text)
    assert part in problem


def test_every_problem_is_told_at_once() -> None:
    assert len(problems('a = "x"\nhelp = ""\nbusy = "{x}"\nfailed = "Fine"')) == 3


@pytest.mark.parametrize("path", ["missing.toml", "/", "/proc/self/mem"])
def test_a_file_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(MessagesError, match=f"BRIDGE_MESSAGES: {path} should be a TOML file"):
        load(Path(path))


def test_the_documentation_has_every_sentence() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert tomllib.loads(example) == asdict(Messages()) | {"loading": list(Messages().loading)}
    assert load(written(example)) == Messages()
