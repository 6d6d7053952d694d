"""Every decision about what people write, and how it goes on after a failure."""

from dataclasses import replace
from itertools import permutations
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import policy
from bridge.models import Emoji, Feedback, Message, Place, Question, Reaction, Reason, Vote
from bridge.policy import (
    Ask,
    Opinion,
    Rules,
    Silence,
    after_pause,
    circuit_wait,
    consider,
    marks,
    meaning,
    patient_wait,
    question_wait,
)

TOP = Message("T1", "C1", "7.000100", None, "U1", "How?", "https://x.slack.com/archives/C1/p7000100")
REPLY = replace(TOP, thread="5.000100")
DIRECT = replace(TOP, channel="D1", is_direct=True)
ALL, MENTIONS = Rules(), Rules(only_mentions=True)
HERE, ELSEWHERE = Rules(channels=frozenset({"C1", "C2"})), Rules(channels=frozenset({"C9"}))
ELSEWHERE_MENTIONS = Rules(only_mentions=True, channels=frozenset({"C9"}))
# What is asked at once, and what only where the bridge takes part in the thread.
ASKED, IF_KNOWN = False, True


@pytest.mark.parametrize(
    ("message", "rules", "expected"),
    [
        # A top-level message
        (TOP, ALL, ASKED),
        (TOP, MENTIONS, Silence.NOT_MENTIONED),
        (TOP, HERE, ASKED),
        (TOP, ELSEWHERE, Silence.OTHER_CHANNEL),
        # One that mentions the bridge
        (replace(TOP, mentions_bridge=True), ALL, ASKED),
        (replace(TOP, mentions_bridge=True), MENTIONS, ASKED),
        (replace(TOP, mentions_bridge=True), ELSEWHERE, Silence.OTHER_CHANNEL),
        (replace(TOP, mentions_bridge=True), ELSEWHERE_MENTIONS, Silence.OTHER_CHANNEL),
        # A reply in a thread
        (REPLY, ALL, IF_KNOWN),
        (REPLY, MENTIONS, IF_KNOWN),
        (REPLY, HERE, IF_KNOWN),
        (REPLY, ELSEWHERE, Silence.OTHER_CHANNEL),
        (replace(REPLY, mentions_bridge=True), ALL, ASKED),
        (replace(REPLY, mentions_bridge=True), MENTIONS, ASKED),
        (replace(REPLY, mentions_bridge=True), ELSEWHERE, Silence.OTHER_CHANNEL),
        # A direct message is always answered
        (DIRECT, ALL, ASKED),
        (DIRECT, MENTIONS, ASKED),
        (DIRECT, ELSEWHERE, ASKED),
        (DIRECT, ELSEWHERE_MENTIONS, ASKED),
        (replace(DIRECT, thread="5.000100"), MENTIONS, ASKED),
        # A message to another person
        (replace(TOP, addresses_someone_else=True), ALL, Silence.SOMEONE_ELSE),
        (replace(REPLY, addresses_someone_else=True), ALL, Silence.SOMEONE_ELSE),
        (replace(DIRECT, addresses_someone_else=True), ALL, ASKED),
        (replace(TOP, addresses_someone_else=True, mentions_bridge=True), MENTIONS, ASKED),
        (replace(REPLY, addresses_someone_else=True, mentions_bridge=True), MENTIONS, ASKED),
        # No text; a bare mention asks for help
        (replace(TOP, text=""), ALL, Silence.NO_TEXT),
        (replace(REPLY, text=""), ALL, Silence.NO_TEXT),
        (replace(DIRECT, text=""), ALL, Silence.NO_TEXT),
        (replace(TOP, text="", mentions_bridge=True), ALL, ASKED),
        (replace(TOP, text="", mentions_bridge=True), MENTIONS, ASKED),
        (replace(DIRECT, text="", mentions_bridge=True), ALL, ASKED),
        (replace(REPLY, text="", mentions_bridge=True), ALL, ASKED),
    ],
)
def test_what_is_a_question(message: Message, rules: Rules, expected: bool | Silence) -> None:
    decision = consider(message, rules)
    assert (decision.must_know_thread if isinstance(decision, Ask) else decision) == expected


MESSAGES = st.builds(
    Message,
    team=st.just("T1"),
    channel=st.sampled_from(["C1", "C2", "D1"]),
    id=st.just("7.000100"),
    thread=st.sampled_from([None, "5.000100"]),
    user=st.just("U1"),
    text=st.sampled_from(["", "How?"]),
    origin_url=st.just("https://x.slack.com/"),
    is_direct=st.booleans(),
    mentions_bridge=st.booleans(),
    addresses_someone_else=st.booleans(),
)
RULES = st.builds(Rules, st.booleans(), st.frozensets(st.sampled_from(["C1", "C2"])))


@given(MESSAGES, RULES)
def test_a_question_says_what_the_message_said_and_waits_in_its_thread(message: Message, rules: Rules) -> None:
    decision = consider(message, rules)
    if isinstance(decision, Silence):
        return
    question = decision.question
    assert (question.text, question.user, question.id) == (message.text, message.user, message.id)
    assert question.origin_url == message.origin_url
    assert question.place == Place("T1", message.channel, message.thread or message.id)
    assert question.line == f"T1:{message.channel}:{message.thread or message.id}"
    assert question.person == "slack:T1:U1"
    assert Question.from_json(question.to_json()) == question


@given(MESSAGES, RULES)
def test_who_mentions_the_bridge_is_never_answered_less(message: Message, rules: Rules) -> None:
    plain, mentioning = (consider(replace(message, mentions_bridge=mentions), rules) for mentions in (False, True))
    if isinstance(plain, Ask):
        assert isinstance(mentioning, Ask)
        assert mentioning.must_know_thread <= plain.must_know_thread


def test_two_events_of_one_message_share_a_mark_and_two_messages_share_none() -> None:
    mention = replace(TOP, mentions_bridge=True, client_id="abc")
    assert set(marks(TOP)) & set(marks(mention))
    # Sent twice by a client that had lost its connection: two messages, one id of the client's.
    assert set(marks(mention)) & set(marks(replace(mention, id="8.000100")))
    for other in (
        replace(mention, id="8.000100", client_id="xyz"),
        replace(mention, channel="C2"),
        replace(mention, team="T2"),
        replace(TOP, id="8.000100"),
        replace(mention, id="8.000100", user="U2"),
    ):
        assert not set(marks(mention)) & set(marks(other))


def test_a_mark_is_short_whatever_a_client_sends() -> None:
    assert all(len(mark) < 200 for mark in marks(replace(TOP, client_id="x" * 40_000)))


# Emoji

UP, DOWN, WRONG = Vote(Reaction.UPVOTE), Vote(Reaction.DOWNVOTE), Vote(Reaction.DOWNVOTE, frozenset({Reason.INCORRECT}))
REACTIONS = {"+1": UP, "heart": UP, "-1": DOWN, "x": WRONG}
NAMES = st.sampled_from(["+1", "+1::skin-tone-2", "heart", "-1", "x", "eyes"])
TIMES = st.builds(
    "{}.{:06}".format, st.integers(0, 10**11) | st.sampled_from([999_999_999, 1_000_000_000]), st.integers(0, 20)
)


def emoji(name: str, at: str, is_on: bool = True) -> Emoji:
    return Emoji("T1", "C1", "7.000100", "U1", name, is_on, at)


def feedback(
    reaction: Reaction, at: str, reasons: tuple[Reason, ...] = (), words: str = "", message: str = "7.000100"
) -> Feedback:
    return Feedback("T1", "C1", message, "U1", at, reaction, reasons, words)


def folded(*events: Emoji | Feedback) -> Opinion:
    found = Opinion()
    for event in events:
        found = found.fold(event)
    return found


SOME_TIMES = TIMES | st.just("5.000001")
FEEDBACK = st.builds(
    feedback,
    st.sampled_from(Reaction),
    SOME_TIMES,
    st.sampled_from([(), (Reason.INCORRECT,)]),
    st.sampled_from(["", "No"]),
)
EVENTS = st.lists(st.builds(emoji, NAMES, SOME_TIMES, st.booleans()) | FEEDBACK, max_size=6)


@given(EVENTS, st.randoms())
def test_the_order_of_arrival_does_not_matter(events: list[Emoji | Feedback], random: Random) -> None:
    shuffled = [*events]
    random.shuffle(shuffled)
    assert folded(*shuffled) == folded(*events)


@given(EVENTS)
def test_what_arrives_twice_counts_once(events: list[Emoji | Feedback]) -> None:
    assert folded(*events, *events) == folded(*events)


def test_two_events_of_one_time_come_to_the_same_in_any_order() -> None:
    on, off = emoji("+1", "5.000001"), emoji("+1", "5.000001", is_on=False)
    assert folded(on, off) == folded(off, on)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], None),
        ([emoji("+1", "1.0")], UP),
        ([emoji("+1", "1.0"), emoji("x", "2.0")], WRONG),
        ([emoji("+1", "1.0"), emoji("x", "2.0"), emoji("x", "3.0", is_on=False)], UP),
        ([emoji("+1", "1.0"), emoji("+1", "2.0", is_on=False)], None),
        ([emoji("+1", "1.0"), emoji("+1", "2.0", is_on=False), emoji("+1", "3.0")], UP),
        ([emoji("eyes", "1.0")], None),
        ([emoji("-1", "1.0"), emoji("eyes", "2.0")], DOWN),
        ([emoji("-1::skin-tone-6", "2.0"), emoji("+1", "1.0")], DOWN),
        # One skin tone taken away leaves the other.
        ([emoji("+1::skin-tone-2", "1.0"), emoji("+1", "2.0"), emoji("+1", "3.0", is_on=False)], UP),
        # By time, not by the alphabet.
        ([emoji("+1", "999999999.000001"), emoji("-1", "1000000000.000001")], DOWN),
        ([emoji("+1", "1.000009"), emoji("-1", "1.000010")], DOWN),
        # A button counts like an emoji that cannot be taken away.
        ([feedback(Reaction.DOWNVOTE, "1.0")], DOWN),
        ([feedback(Reaction.DOWNVOTE, "1.0"), emoji("+1", "2.0")], UP),
        ([feedback(Reaction.DOWNVOTE, "3.0"), emoji("+1", "2.0")], DOWN),
        ([feedback(Reaction.DOWNVOTE, "1.0"), emoji("+1", "2.0"), emoji("+1", "3.0", is_on=False)], DOWN),
        ([feedback(Reaction.DOWNVOTE, "1.0"), feedback(Reaction.UPVOTE, "2.0")], UP),
        # What the modal brings has the time of the click that opened it.
        (
            [feedback(Reaction.DOWNVOTE, "1.0", (Reason.INCORRECT,), "No"), feedback(Reaction.DOWNVOTE, "1.0")],
            Vote(Reaction.DOWNVOTE, frozenset({Reason.INCORRECT}), "No"),
        ),
        # Who says the same again by an emoji takes no words back; who says something else does.
        ([feedback(Reaction.DOWNVOTE, "1.0", (), "No"), emoji("-1", "2.0")], Vote(Reaction.DOWNVOTE, words="No")),
        ([feedback(Reaction.DOWNVOTE, "1.0", (), "No"), emoji("x", "2.0")], WRONG),
        ([feedback(Reaction.DOWNVOTE, "1.0", (), "No"), emoji("+1", "2.0")], UP),
        # Taken away before the event that it was put on arrived.
        ([emoji("x", "2.0", is_on=False), emoji("x", "1.0"), emoji("heart", "0.5")], UP),
    ],
)
def test_the_newest_that_is_left_counts(events: list[Emoji | Feedback], expected: Vote | None) -> None:
    for arrival in permutations(events):
        assert folded(*arrival).vote(REACTIONS) == expected


@given(EVENTS)
def test_the_vote_is_that_of_the_newest_that_is_there(events: list[Emoji | Feedback]) -> None:
    there: dict[str, tuple[tuple[int, int], Vote | None]] = {}
    for event in sorted(events, key=lambda event: (_seconds(event), isinstance(event, Feedback) or event.is_on)):
        if isinstance(event, Feedback):
            there[f"said {event.at} {event.vote}"] = (_seconds(event), event.vote)
        elif event.is_on and meaning(event.name, REACTIONS):
            there[event.name] = (_seconds(event), meaning(event.name, REACTIONS))
        else:
            there.pop(event.name, None)
    vote = folded(*events).vote(REACTIONS)
    newest = max((at for at, _ in there.values()), default=None)
    likely = {vote for at, vote in there.values() if at == newest} | (set() if there else {None})
    # A bare emoji takes nothing back of what was said in words to the same effect.
    said = {event.vote for event in events if isinstance(event, Feedback) and Vote(event.reaction) in likely}
    assert vote in likely | said


def _seconds(event: Emoji | Feedback) -> tuple[int, int]:
    seconds, fraction = event.at.split(".")
    return int(seconds), int(fraction)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("+1", UP), ("+1::skin-tone-3", UP), ("x", WRONG), ("eyes", None), ("", None), ("::+1", None)],
)
def test_a_skin_tone_does_not_change_what_an_emoji_means(name: str, expected: Vote | None) -> None:
    assert meaning(name, REACTIONS) == expected


# Waits

JITTER = st.floats(0, 1)


def test_waits_grow() -> None:
    questions = [question_wait(failures, None, 0.5) for failures in range(1, 5)]
    assert questions == [1.0, 3.0, 8.0, 20.0]
    patient = [patient_wait(failures, None, 0.5) for failures in range(1, 8)]
    assert patient == [1.0, 5.0, 30.0, 120.0, 600.0, 600.0, 600.0]


@given(st.integers(1, 4), JITTER)
def test_waits_of_many_are_spread_by_a_quarter_each_way(failures: int, jitter: float) -> None:
    for wait in (question_wait, patient_wait):
        middle, found = wait(failures, None, 0.5), wait(failures, None, jitter)
        assert middle is not None
        assert found is not None
        assert 0.75 * middle <= found <= 1.25 * middle


@given(st.integers(1, 4), st.floats(0, policy.LONGEST_WAIT_SECONDS), JITTER)
def test_a_pause_that_was_asked_for_is_kept(failures: int, asked_for: float, jitter: float) -> None:
    for wait in (question_wait, patient_wait):
        scheduled, found = wait(failures, None, jitter), wait(failures, asked_for, jitter)
        assert scheduled is not None
        assert found == max(scheduled, asked_for)


def test_a_question_is_given_up_when_a_person_would_wait_too_long() -> None:
    assert question_wait(5, None, 0.5) is None
    assert question_wait(1, policy.LONGEST_WAIT_SECONDS + 1, 0.5) is None
    assert question_wait(1, inf, 0.5) is None


@pytest.mark.parametrize(
    ("seconds", "jitter", "expected"),
    [(1, 0, 1), (1, 1, 2), (5, 1, 10), (60, 0, 60), (60, 0.5, 62.5), (3600, 1, 3605), (0, 1, 0)],
)
def test_those_who_wait_come_back_after_the_pause_and_one_by_one(
    seconds: float, jitter: float, expected: float
) -> None:
    assert after_pause(seconds, jitter) == expected


def test_a_question_waits_for_the_next_attempt_at_a_kapa_that_is_out() -> None:
    assert [circuit_wait(failures, 0, 0.5) for failures in range(1, 7)] == [1.0, 3.0, 8.0, 20.0, 20.0, None]
    assert circuit_wait(1, 10, 0) == 10
    assert circuit_wait(5, 60, 1) == 65


@given(st.integers(1, 5), st.floats(0, inf), JITTER)
def test_no_pause_of_the_bridge_s_own_is_a_reason_to_give_up(failures: int, pause: float, jitter: float) -> None:
    wait = circuit_wait(failures, pause, jitter)
    assert wait is not None
    assert 0 < wait <= policy.LONGEST_WAIT_SECONDS


def test_what_nobody_waits_for_outlasts_an_outage_of_two_days() -> None:
    waits = [patient_wait(failures, None, 0.0) or 0 for failures in range(1, policy.PATIENT_FAILURES + 1)]
    assert 0 not in waits
    assert (
        sum(patient_wait(failures, None, 0.5) or 0 for failures in range(1, policy.PATIENT_FAILURES + 1)) > 2 * 86_400
    )
    assert patient_wait(policy.PATIENT_FAILURES + 1, None, 0.5) is None


@given(st.integers(1, policy.PATIENT_FAILURES), st.floats(0, inf), JITTER)
def test_no_wait_is_without_end_whatever_was_asked_for(failures: int, asked_for: float, jitter: float) -> None:
    wait = patient_wait(failures, asked_for, jitter)
    assert wait is not None
    assert 0 < wait <= policy.LONGEST_PAUSE_SECONDS
