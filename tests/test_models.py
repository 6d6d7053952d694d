import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.models import Answer, Emoji, Place, Question, Source

PLACE = Place("T1", "C1", "1.1")
QUESTION = Question(PLACE, "1.2", "U1", "How?", "https://a.slack.com/x", asked_at=1.2)
EMOJI = Emoji("T1", "C1", "1.1", "U1", "+1", is_on=True, at="2.1")
ANSWER = Answer("To start", "t1", "q1", is_uncertain=True, sources=(Source("https://d/", "D", is_internal=True),))

QUESTIONS = st.builds(Question, place=st.builds(Place), asked_at=st.floats(allow_nan=False))
EMOJIS = st.builds(Emoji)
ANSWERS = st.builds(Answer, sources=st.lists(st.builds(Source)).map(tuple))


@given(QUESTIONS)
def test_a_question_comes_back(question: Question) -> None:
    assert Question.from_json(question.to_json()) == question


@given(EMOJIS)
def test_an_emoji_comes_back(emoji: Emoji) -> None:
    assert Emoji.from_json(emoji.to_json()) == emoji


@given(ANSWERS)
def test_an_answer_comes_back(answer: Answer) -> None:
    assert Answer.from_json(answer.to_json()) == answer


def test_what_waits_is_short_readable_json() -> None:
    assert EMOJI.to_json() == (
        '{"team":"T1","channel":"C1","message":"1.1","user":"U1","name":"+1","is_on":true,"at":"2.1","answer":"","about":""}'
    )
    assert "ä🎉" in dataclasses.replace(QUESTION, text="ä🎉").to_json()


def test_what_an_older_bridge_left_behind_is_read() -> None:
    assert Question.from_json(
        '{"place":{"team":"T1","channel":"C1","thread":"1.1"},"id":"1.2","user":"U1","text":"How?","origin_url":"x"}'
    ) == Question(PLACE, "1.2", "U1", "How?", "x")
    assert Answer.from_json('{"text":"x","thread_id":"t","question_answer_id":"q","sources":[]}') == Answer(
        "x", "t", "q"
    )


@pytest.mark.parametrize("kind", [Question, Emoji, Answer])
@pytest.mark.parametrize(
    "text", ["", "null", "[]", "7", '"text"', "{}", '{"place":7}', '{"sources":7}', '{"sources":[7]}', '{"x":1}', "{"]
)
def test_anything_else_is_an_error(kind: Any, text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        kind.from_json(text)


def test_a_conversation_waits_in_one_line_and_people_have_one_name() -> None:
    assert QUESTION.line == "T1:C1:1.1"
    assert dataclasses.replace(QUESTION, id="1.3", user="U2").line == QUESTION.line
    assert EMOJI.line == "T1:C1:1.1"
    assert (QUESTION.person, EMOJI.person) == ("slack:T1:U1", "slack:T1:U1")


@pytest.mark.parametrize("value", [PLACE, QUESTION, EMOJI, ANSWER], ids=lambda value: type(value).__name__)
def test_values_stay_as_they_are(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
