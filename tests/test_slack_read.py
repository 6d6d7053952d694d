import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.models import Deletion, Edit, Emoji, Message
from bridge.slack.read import Event, Identity, Ignored, emoji_name, event, permalink, readable, team_of

BRIDGE = Identity(team="T111", user="U0BRIDGE", bot="B0BRIDGE", url="https://acme.slack.com/")
Json = dict[str, Any]


def body(inner: object, **overrides: object) -> Json:
    authorization = {
        "enterprise_id": None,
        "team_id": "T111",
        "user_id": "U0BRIDGE",
        "is_bot": True,
        "is_enterprise_install": False,
    }
    return {
        "token": "deprecated",
        "team_id": "T111",
        "enterprise_id": None,
        "api_app_id": "A111",
        "type": "event_callback",
        "event_id": "Ev111",
        "event_time": 1610241741,
        "authorizations": [authorization],
        "is_ext_shared_channel": False,
        "event_context": "4-eyJ",
        "event": inner,
        **overrides,
    }


def message(**fields: object) -> Json:
    return {
        "type": "message",
        "client_msg_id": "f0582a78-72db-4feb-b2f3-1e47d66365c8",
        "user": "U222",
        "text": "How do I rotate keys?",
        "ts": "1610241741.000200",
        "team": "T111",
        "blocks": [{"type": "rich_text", "block_id": "Sesm", "elements": []}],
        "channel": "C111",
        "event_ts": "1610241741.000200",
        "channel_type": "channel",
        **fields,
    }


def reaction(**fields: object) -> Json:
    return {
        "type": "reaction_added",
        "user": "U222",
        "reaction": "thumbsup",
        "item_user": "U0BRIDGE",
        "item": {"type": "message", "channel": "C111", "ts": "1360782400.498405"},
        "event_ts": "1360782804.083113",
        **fields,
    }


def without(fields: Json, *names: str) -> Json:
    return {name: value for name, value in fields.items() if name not in names}


def read(inner: object, **overrides: object) -> Event:
    return event(body(inner, **overrides), BRIDGE)


def read_message(inner: object, **overrides: object) -> Message:
    found = read(inner, **overrides)
    assert isinstance(found, Message), found
    return found


def read_emoji(inner: object, **overrides: object) -> Emoji:
    found = read(inner, **overrides)
    assert isinstance(found, Emoji), found
    return found


# Messages


def test_a_message_in_a_channel_is_read_whole() -> None:
    assert read(message()) == Message(
        team="T111",
        channel="C111",
        id="1610241741.000200",
        thread=None,
        user="U222",
        text="How do I rotate keys?",
        origin_url="https://acme.slack.com/archives/C111/p1610241741000200",
        client_id="f0582a78-72db-4feb-b2f3-1e47d66365c8",
        written_at=1610241741.0002,
    )


def test_a_reply_names_its_thread_and_links_into_it() -> None:
    found = read_message(message(ts="1610241800.000300", thread_ts="1610241741.000200", parent_user_id="U222"))
    assert (found.id, found.thread) == ("1610241800.000300", "1610241741.000200")
    assert found.origin_url == (
        "https://acme.slack.com/archives/C111/p1610241800000300?thread_ts=1610241741.000200&cid=C111"
    )


def test_a_message_that_opens_its_own_thread_stands_in_none() -> None:
    found = read_message(message(thread_ts="1610241741.000200"))
    assert found.thread is None
    assert "thread_ts" not in found.origin_url


ROOT = {"user": "U111", "ts": "1610241741.000200", "thread_ts": "1610241741.000200", "reply_count": 17}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {"subtype": "thread_broadcast", "thread_ts": "1610241741.000100", "root": ROOT},
            {"thread": "1610241741.000100"},
            id="thread_broadcast",
        ),
        pytest.param({"subtype": "file_share", "files": [{"id": "F1"}], "upload": True}, {}, id="file_share"),
        pytest.param({"channel": "G111", "channel_type": "group"}, {"channel": "G111"}, id="private channel"),
        pytest.param({"channel_type": "mpim"}, {"is_direct": False}, id="group direct message"),
        pytest.param({"channel": "D111", "channel_type": "im"}, {"is_direct": True}, id="direct message"),
        pytest.param({"channel": "D111", "channel_type": None}, {"is_direct": True}, id="direct message by its id"),
        pytest.param({"text": None}, {"text": ""}, id="null text"),
        pytest.param({"text": ["odd"]}, {"text": ""}, id="text that is none"),
        pytest.param({"subtype": None}, {}, id="null subtype"),
        pytest.param({"bot_id": None}, {}, id="null bot"),
        pytest.param({"thread_ts": None}, {"thread": None}, id="null thread"),
        pytest.param({"thread_ts": "soon"}, {"thread": None}, id="thread that is none"),
        pytest.param({"client_msg_id": 7}, {"client_id": None}, id="client id that is none"),
        pytest.param({"client_msg_id": "\ud800"}, {"client_id": None}, id="client id that cannot be written"),
        pytest.param({"client_msg_id": "11-22"}, {"client_id": "11-22"}, id="short client id"),
        pytest.param({"app_context": {"x": 1}, "assistant_thread": 5}, {}, id="fields nobody knows"),
        pytest.param({"user": "W222"}, {"user": "W222"}, id="person of an Enterprise Grid"),
        pytest.param({"edited": {"user": "U222", "ts": "1.2"}}, {}, id="edited since"),
    ],
)
def test_shapes_of_messages(fields: Json, expected: Json) -> None:
    found = read_message(message(**fields))
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_long_message_is_read_whole() -> None:
    assert read_message(message(text="word " * 8_000)).text == ("word " * 8_000).strip()


CHANGED = {
    "subtype": "message_changed",
    "hidden": True,
    "message": without(
        message(text="updated", edited={"user": "U222", "ts": "1610241800.000000"}), "channel", "event_ts"
    ),
    "previous_message": without(message(), "channel"),
    "ts": "1610241800.000900",
    "event_ts": "1610241800.000900",
}
TOMBSTONE = {
    "subtype": "message_changed",
    "hidden": True,
    "message": {
        "type": "message",
        "subtype": "tombstone",
        "user": "USLACKBOT",
        "text": "This message was deleted.",
        "hidden": True,
        "ts": "1704604884.175949",
        "thread_ts": "1704604884.175949",
    },
    "previous_message": without(message(ts="1704604884.175949"), "channel"),
    "event_ts": "1704604890.000700",
}
DELETED = {
    "subtype": "message_deleted",
    "hidden": True,
    "deleted_ts": "1610241741.000200",
    "previous_message": without(message(), "channel"),
    "event_ts": "1610241900.000200",
}


def changed(now: dict[str, object], before: dict[str, object], **more: object) -> dict[str, object]:
    """Give the event of a change in which the message's own fields are `now`, and were `before`."""
    event = message(**CHANGED)
    event["message"] = {**CHANGED["message"], **now}  # type: ignore[dict-item] # JSON
    event["previous_message"] = {**CHANGED["previous_message"], **before}  # type: ignore[dict-item] # JSON
    return without(event, "user", "text") | more


def test_an_edit_is_the_message_as_it_is_now() -> None:
    found = read(changed({}, {}))
    assert isinstance(found, Edit)
    assert (found.message.text, found.message.id, found.message.user) == ("updated", "1610241741.000200", "U222")
    assert (found.at, found.message.written_at) == ("1610241800.000900", 1610241800.0009)
    assert found.age == pytest.approx(59.0007)


def test_an_edited_reply_names_its_thread() -> None:
    found = read(changed({"thread_ts": "1610241700.000100"}, {"thread_ts": "1610241700.000100"}))
    assert isinstance(found, Edit)
    assert found.message.thread == "1610241700.000100"


EDITED = {"edited": {"user": "U222", "ts": "1610241790.000000"}}
NO_EDITS = {
    "an unfurl": ({"text": "How do I rotate keys?", "edited": None, "attachments": [{"id": 1}]}, {}, "no_edit"),
    "an unfurl of a message edited before": (EDITED, EDITED, "no_edit"),
    "a change of the thread": ({"text": "How do I rotate keys?", "reply_count": 2, "edited": None}, {}, "no_edit"),
    "an edit that leaves the text": ({"text": "How do I rotate keys?"}, {}, "no_edit"),
    "an odd mark of an edit": ({"edited": "yes"}, {}, "no_edit"),
    "an edit by a bot": ({"bot_id": "B999"}, {}, "bot"),
    "an edit of our own": ({"user": "U0BRIDGE"}, {"user": "U0BRIDGE"}, "bot"),
    "an edit of a join": ({"subtype": "channel_join"}, {}, "subtype"),
    "no time": ({}, {}, "malformed"),
}


@pytest.mark.parametrize("name", NO_EDITS)
def test_what_is_no_edit(name: str) -> None:
    now, before, reason = NO_EDITS[name]
    more = {"event_ts": "soon"} if name == "no time" else {}
    assert read(changed(now, before, **more)) == Ignored(reason)  # type: ignore[arg-type] # JSON


@pytest.mark.parametrize(
    ("inner", "ts", "at", "age"),
    [
        (TOMBSTONE, "1704604884.175949", "1704604890.000700", 5.824751),
        (DELETED, "1610241741.000200", "1610241900.000200", 159.0),
    ],
    ids=["with replies", "without"],
)
def test_a_deletion_names_what_is_gone(inner: dict[str, object], ts: str, at: str, age: float) -> None:
    found = read(without(message(**inner), "user", "text"))
    assert isinstance(found, Deletion)
    assert (found.team, found.channel, found.id, found.thread, found.user) == ("T111", "C111", ts, None, "U222")
    assert found.at == at
    assert found.age == pytest.approx(age)


def test_a_deleted_reply_names_its_thread() -> None:
    gone = {**DELETED, "previous_message": without(message(thread_ts="1610241700.000100"), "channel")}
    found = read(without(message(**gone), "user", "text"))
    assert isinstance(found, Deletion)
    assert found.thread == "1610241700.000100"


@pytest.mark.parametrize(
    ("previous", "reason"),
    [
        ({"subtype": "tombstone", "user": "USLACKBOT"}, "tombstone"),
        ({"user": "U0BRIDGE"}, "bot"),
        ({"user": None}, "bot"),
    ],
)
def test_what_is_no_deletion_of_a_question(previous: dict[str, object], reason: str) -> None:
    gone = {**DELETED, "previous_message": {**without(message(), "channel"), **previous}}
    assert read(without(message(**gone), "user", "text")) == Ignored(reason)


def test_people_of_another_company_and_their_channels_are_known() -> None:
    found = read_message(message(user_team="T222", team="T222"), is_ext_shared_channel=True)
    assert (found.team, found.user_team, found.is_shared) == ("T111", "T222", True)
    assert read_message(message(team="odd one")).user_team == ""


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        pytest.param(message(subtype="bot_message", bot_id="B1"), "subtype", id="bot by subtype"),
        *(
            pytest.param(message(subtype=subtype), "subtype", id=subtype)
            for subtype in ("channel_join", "channel_leave", "channel_topic", "me_message", "message_replied", "x")
        ),
        pytest.param(message(bot_id="B999"), "bot", id="another bot"),
        pytest.param(message(bot_id="B0BRIDGE", user="U0BRIDGE"), "bot", id="itself"),
        pytest.param(message(user="U0BRIDGE"), "bot", id="itself by its user alone"),
        pytest.param(message(user="USLACKBOT"), "bot", id="Slackbot"),
        pytest.param(without(message(), "user"), "bot", id="nobody"),
        pytest.param(message(user=None), "bot", id="null user"),
        pytest.param(message(type="app_mention", bot_id="B999"), "bot", id="mention by a bot"),
        pytest.param(message(type="app_mention", subtype="channel_join"), "subtype", id="mention in a join"),
        pytest.param(message(user=7), "malformed", id="user of another kind"),
        pytest.param(message(user="someone"), "malformed", id="user that is none"),
        pytest.param(message(ts=1610241741.0002), "malformed", id="ts that is a number"),
        pytest.param(message(ts="1610241741"), "malformed", id="ts without a fraction"),
        pytest.param(message(ts="١٢.٣"), "malformed", id="ts in other digits"),
        pytest.param(message(ts="1.2\n"), "malformed", id="ts with a line break"),
        pytest.param(without(message(), "ts"), "malformed", id="no ts"),
        pytest.param(without(message(), "channel"), "malformed", id="no channel"),
        pytest.param(message(channel="../etc"), "malformed", id="channel that is none"),
        pytest.param(message(channel="C111\n"), "malformed", id="channel with a line break"),
        pytest.param(message(channel={"id": "C111"}), "malformed", id="channel of another kind"),
        pytest.param(without(message(), "type"), "malformed", id="no type"),
        pytest.param(message(type=None), "malformed", id="null type"),
        pytest.param([], "malformed", id="event that is a list"),
        pytest.param(None, "malformed", id="null event"),
        pytest.param("message", "malformed", id="event that is a text"),
        pytest.param({}, "malformed", id="empty event"),
    ],
)
def test_what_is_no_message_of_a_person(inner: object, reason: str) -> None:
    assert read(inner) == Ignored(reason)


AGENT_THREAD = {"user_id": "U222", "context": {}, "channel_id": "D111", "thread_ts": "1729999327.187299"}


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "assistant_thread_started", "assistant_thread": AGENT_THREAD, "event_ts": "1715873754.429808"},
        {"type": "assistant_thread_context_changed", "assistant_thread": AGENT_THREAD},
        {"type": "app_home_opened", "user": "U222", "channel": "D111", "tab": "messages", "event_ts": "1.1"},
        {"type": "app_context_changed", "context": {"entities": []}},
        {"type": "agent_session_stopped", "channel": "C111", "thread_ts": "1.1", "streaming_message_ts": ["1.2"]},
        {"type": "tokens_revoked", "tokens": {"oauth": ["U222"], "bot": ["U0BRIDGE"]}},
        {"type": "app_uninstalled"},
        {"type": "member_joined_channel", "user": "U222", "channel": "C111"},
        {"type": ""},
    ],
    ids=lambda inner: inner["type"] or "empty",
)
def test_other_events_are_ignored(inner: Json) -> None:
    assert read(inner) == Ignored("other_event")


@pytest.mark.parametrize(
    "whole",
    [
        None,
        [],
        "text",
        7,
        {},
        {"type": "app_rate_limited", "team_id": "T111", "minute_rate_limited": 1518467820},
        {"type": "url_verification", "challenge": "abc"},
    ],
    ids=repr,
)
def test_bodies_without_an_event_are_malformed(whole: object) -> None:
    assert event(whole, BRIDGE) == Ignored("malformed")


# Whose installation


@pytest.mark.parametrize(
    ("overrides", "team"),
    [
        ({"authorizations": [{"team_id": "T1"}], "team_id": "T2"}, "T1"),
        ({"authorizations": [{"team_id": "T1"}, {"team_id": "T3"}], "team_id": "T2"}, "T1"),
        ({"authorizations": [{"team_id": None}], "team_id": "T2"}, "T2"),
        ({"authorizations": [{}], "team_id": "T2"}, "T2"),
        ({"authorizations": [], "team_id": "T2"}, "T2"),
        ({"authorizations": None, "team_id": "T2"}, "T2"),
        ({"authorizations": {"team_id": "T1"}, "team_id": "T2"}, "T2"),
        ({"authorizations": ["T1"], "team_id": "T2"}, "T2"),
        ({"authorizations": [{"team_id": "a:b"}], "team_id": "T2"}, "T2"),
        ({"authorizations": [], "team_id": None}, "T111"),
        ({"authorizations": [], "team_id": ["T2"]}, "T111"),
    ],
    ids=repr,
)
def test_the_team_is_the_first_authorization_s_else_the_envelope_s(overrides: Json, team: str) -> None:
    assert team_of(body({}, **overrides), BRIDGE) == team
    assert read_message(message(team="T999", user_team="T999"), **overrides).team == team
    assert read_emoji(reaction(), **overrides).team == team


# Mentions


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("<@U0BRIDGE> how?", "how?"),
        ("<@U0BRIDGE|kapa> how?", "how?"),
        ("<@U0BRIDGE|> how?", "how?"),
        ("<@U0BRIDGE>: how?", "how?"),
        ("<@U0BRIDGE>, how?", "how?"),
        ("<@U0BRIDGE> , how?", "how?"),
        ("hey <@U0BRIDGE> how?", "hey how?"),
        ("hey <@U0BRIDGE>, how?", "hey how?"),
        ("how? <@U0BRIDGE>", "how?"),
        ("<@U0BRIDGE>\nhow?", "how?"),
        ("<@U0BRIDGE><@U0BRIDGE> how?", "how?"),
        ("<@U0BRIDGE> ask <@U222>", "ask @U222"),
        ("<@U0BRIDGE>", ""),
        ("<@U0BRIDGE>: ", ""),
    ],
)
def test_the_bridge_s_own_mention_is_taken_out(raw: str, text: str) -> None:
    found = read_message(message(text=raw))
    assert (found.text, found.mentions_bridge) == (text, True)


@pytest.mark.parametrize(
    ("raw", "mentions_bridge", "addresses_someone_else"),
    [
        ("<@U222> look at this", False, True),
        ("<@W222|ann> look at this", False, True),
        ("  <@U222> look at this", False, True),
        ("<@U222> <@U0BRIDGE> look at this", True, True),
        ("<@U0BRIDGE> ask <@U222>", True, False),
        ("ask <@U222> about it", False, False),
        ("<#C111|general> is where it is", False, False),
        ("<!here> how?", False, False),
        ("<@U0BRIDGES> how?", False, True),
        ("&lt;@U0BRIDGE&gt; how?", False, False),
        ("", False, False),
    ],
)
def test_who_is_addressed(raw: str, mentions_bridge: bool, addresses_someone_else: bool) -> None:
    found = read_message(message(text=raw))
    assert (found.mentions_bridge, found.addresses_someone_else) == (mentions_bridge, addresses_someone_else)


def test_an_app_mention_is_the_same_message_and_mentions_the_bridge() -> None:
    text = "<@U0BRIDGE> how?"
    mention = without(message(type="app_mention", text=text), "channel_type")
    assert read(mention) == read(message(text=text))
    assert read_message(message(type="app_mention", text="no token at all")).mentions_bridge


# Slack's markup


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", "plain"),
        ("<@U1|ann>", "@ann"),
        ("<@U1>", "@U1"),
        ("<#C1|general>", "#general"),
        ("<#C1|>", "#C1"),
        ("<#C1>", "#C1"),
        ("<https://x.y/a?b=1&amp;c=2>", "https://x.y/a?b=1&c=2"),
        ("<https://x.y|label>", "label (https://x.y)"),
        ("<https://x.y|https://x.y>", "https://x.y"),
        ("<https://x.y|>", "https://x.y"),
        ("<http://x.y|a|b>", "a|b (http://x.y)"),
        ("<mailto:a@b.c|a@b.c>", "a@b.c"),
        ("<mailto:a@b.c|write to us>", "write to us (a@b.c)"),
        ("<tel:+49301|+49301>", "+49301"),
        ("<!here>", "@here"),
        ("<!channel|channel>", "channel"),
        ("<!subteam^S1|@ops>", "@ops"),
        ("<!subteam^S1>", "@subteam"),
        ("<!date^1392734382^{date_short}^https://x.y|Feb 18, 2014>", "Feb 18, 2014"),
        ("a &lt; b &amp;&amp; c &gt; d", "a < b && c > d"),
        ("&amp;lt;", "&lt;"),
        ("&amp;amp;", "&amp;"),
        ("&amp;gt; is &gt;", "&gt; is >"),
        ("`List&lt;String&gt;`", "`List<String>`"),
        ("```if (a &lt; b) {\n  x();\n}```", "```if (a < b) {\n  x();\n}```"),
        ("&lt;@U1|ann&gt;", "<@U1|ann>"),
        ("&nbsp;&quot;", "&nbsp;&quot;"),
        ("a < b", "a < b"),
        ("*bold* _it_ ~gone~", "*bold* _it_ ~gone~"),
        ("  around  ", "around"),
        ("zero\x00byte", "zerobyte"),
        ("half \ud83d pair", "half ? pair"),
        ("whole 🎉 pair", "whole 🎉 pair"),
        ("", ""),
    ],
)
def test_markup_becomes_what_a_person_saw(raw: str, text: str) -> None:
    assert readable(raw, bridge_user="U0BRIDGE") == text


ODD_TEXT = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from("<>&@#!|^amplt;gU0BRIDGE:/\ud800 "))


@given(ODD_TEXT)
@example("<<@U0BRIDGE>@U0BRIDGE>")
@example("<|>")
def test_readable_is_total_and_gives_what_can_be_sent(raw: str) -> None:
    text = readable(raw, bridge_user="U0BRIDGE")
    assert text.encode("utf-8").decode("utf-8") == text
    assert text == text.strip()
    assert "\x00" not in text


@given(st.text(st.characters(exclude_characters="<>&\x00", exclude_categories=["Cs"])))
def test_text_without_markup_passes_unchanged(raw: str) -> None:
    assert readable(raw, bridge_user="U0BRIDGE") == raw.strip()


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_what_a_person_typed_comes_out_as_typed(typed: str) -> None:
    escaped = typed.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert readable(escaped, bridge_user="U0BRIDGE") == typed.strip()


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_any_body_is_read(whole: object) -> None:
    assert event(whole, BRIDGE) == Ignored("malformed")


CHANGES = [message(**CHANGED), message(**TOMBSTONE), message(**DELETED)]


@given(st.sampled_from([message(), message(type="app_mention"), reaction(), *CHANGES]), st.data())
def test_any_change_to_an_event_is_read(inner: Json, data: st.DataObject) -> None:
    names = st.sampled_from([*inner, "subtype", "thread_ts", "bot_id"])
    changed = inner | data.draw(st.dictionaries(names, JSON_VALUES, max_size=3))
    found = event(body(changed, authorizations=data.draw(JSON_VALUES)), BRIDGE)
    if isinstance(found, Ignored):
        assert found.reason in {
            "malformed",
            "bot",
            "subtype",
            "other_event",
            "not_a_message",
            "elsewhere",
            "no_edit",
            "tombstone",
        }
    else:
        # Everything can be written to Redis and sent to Kapa.
        json.dumps(asdict(found), ensure_ascii=False).encode("utf-8")


# Reactions


@pytest.mark.parametrize("is_on", [True, False])
def test_a_reaction_on_the_bridge_s_message_is_an_emoji(is_on: bool) -> None:
    kind = "reaction_added" if is_on else "reaction_removed"
    assert read(reaction(type=kind)) == Emoji(
        team="T111",
        channel="C111",
        message="1360782400.498405",
        user="U222",
        name="+1",
        is_on=is_on,
        at="1360782804.083113",
    )


def test_a_reaction_may_not_say_whose_message_it_is_on() -> None:
    assert read_emoji(without(reaction(), "item_user")).message == "1360782400.498405"
    assert read_emoji(reaction(item_user=None)).message == "1360782400.498405"


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        pytest.param(reaction(item_user="U333"), "elsewhere", id="on a person's message"),
        pytest.param(reaction(user="U0BRIDGE"), "bot", id="by itself"),
        pytest.param(reaction(item={"type": "file", "channel": "C111", "ts": "1.2"}), "not_a_message", id="on a file"),
        pytest.param(reaction(item={"type": "file", "file": "F1"}), "malformed", id="on a file of old"),
        pytest.param(reaction(item=None), "malformed", id="on nothing"),
        pytest.param(reaction(item={"type": "message", "channel": "C111"}), "malformed", id="no ts"),
        pytest.param(reaction(reaction=""), "malformed", id="no emoji"),
        pytest.param(reaction(reaction="x" * 201), "malformed", id="emoji without end"),
        pytest.param(reaction(reaction=7), "malformed", id="emoji of another kind"),
        pytest.param(reaction(event_ts="now"), "malformed", id="no time"),
        pytest.param(without(reaction(), "user"), "malformed", id="nobody"),
    ],
)
def test_reactions_that_are_no_emoji_on_an_answer(inner: Json, reason: str) -> None:
    assert read(inner) == Ignored(reason)


@pytest.mark.parametrize(
    ("reaction_name", "name"),
    [
        ("thumbsup", "+1"),
        ("+1", "+1"),
        ("thumbsdown", "-1"),
        ("-1", "-1"),
        ("thumbsup::skin-tone-2", "+1::skin-tone-2"),
        ("+1::skin-tone-6", "+1::skin-tone-6"),
        (":heart:", "heart"),
        ("thumbsup_all", "thumbsup_all"),
    ],
)
def test_an_emoji_has_one_name(reaction_name: str, name: str) -> None:
    assert emoji_name(reaction_name) == name
    assert emoji_name(name) == name
    assert read_emoji(reaction(reaction=reaction_name)).name == name


# Permalinks


@pytest.mark.parametrize(
    ("url", "thread", "link"),
    [
        ("https://a.slack.com/", None, "https://a.slack.com/archives/C1/p1610241741000200"),
        ("https://a.slack.com", None, "https://a.slack.com/archives/C1/p1610241741000200"),
        ("https://a.slack.com/", "1610241741.000200", "https://a.slack.com/archives/C1/p1610241741000200"),
        ("https://a.slack.com/", "1.2", "https://a.slack.com/archives/C1/p1610241741000200?thread_ts=1.2&cid=C1"),
    ],
)
def test_permalinks(url: str, thread: str | None, link: str) -> None:
    assert permalink(url, "C1", "1610241741.000200", thread) == link
