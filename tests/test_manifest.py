"""The manifest asks for what the code listens to and calls, and for nothing else, in the form that Slack takes."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from slack_sdk.web.async_client import AsyncWebClient

from bridge.models import Emoji, Message
from bridge.playground.slack_api import BOT_SCOPES
from bridge.slack import app, read
from bridge.slack.http import PATH
from bridge.slack.manifest import EVENTS, SCOPES, manifest
from bridge.slack.read import Identity, Ignored
from tests.manifest_schema import SCHEMA

URL = f"https://bridge.example.com{PATH}"
BRIDGE = Path(read.__file__).parent.parent
SLACK = Draft7Validator(SCHEMA)
WE = Identity("T1", "U0BRIDGE", "B0BRIDGE", "https://acme.slack.com/")

# Which scope an event wants: https://docs.slack.dev/reference/events/<name>, Required Scopes.
SCOPES_OF_EVENTS = {
    "app_mention": "app_mentions:read",
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
    "message.mpim": "mpim:history",
    "reaction_added": "reactions:read",
    "reaction_removed": "reactions:read",
}
# One for each kind of conversation that the bridge is in.
HISTORY = {"channels:history", "groups:history", "im:history", "mpim:history"}
# Which scopes a bot's token wants for a method: https://docs.slack.dev/reference/methods/<name>, Scopes. That
# setStatus takes chat:write: https://docs.slack.dev/changelog/2026/03/05/set-status-scope-update.
SCOPES_OF_METHODS: dict[str, set[str]] = {
    "api.test": set(),
    "apps.connections.open": set(),  # the app-level token's connections:write, which no manifest grants
    "assistant.threads.setStatus": {"chat:write"},
    "auth.test": set(),
    "chat.appendStream": {"chat:write"},
    "chat.delete": {"chat:write"},
    "chat.postEphemeral": {"chat:write"},
    "chat.postMessage": {"chat:write"},
    "chat.startStream": {"chat:write"},
    "chat.stopStream": {"chat:write"},
    "chat.update": {"chat:write"},
    "conversations.history": HISTORY,
    "conversations.replies": HISTORY,
    "views.open": set(),
}


# What the code does


def trees() -> Iterator[ast.Module]:
    for path in BRIDGE.rglob("*.py"):
        if BRIDGE / "playground" not in path.parents:
            yield ast.parse(path.read_text(encoding="utf-8"))


def methods_called() -> set[str]:
    """Give the Web API methods behind each of the SDK's that is named anywhere in the bridge."""
    names = {node.attr for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "api_call" not in names, "a method that is called by its name is not found here"
    called = [value for name, value in vars(AsyncWebClient).items() if name in names and inspect.isfunction(value)]
    found = (re.search(r'api_call\(\s*"([\w.]+)"', inspect.getsource(function)) for function in called)
    return {match[1] for match in found if match}


def events_read() -> set[str]:
    """Give the types of events that `read.event` tells apart from all others."""
    compared = [
        comparator
        for node in ast.walk(ast.parse(inspect.getsource(read.event)))
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "kind.type"
        for comparator in node.comparators
    ]
    return {
        node.value
        for comparator in compared
        for node in ast.walk(comparator)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def listeners() -> set[str]:
    """Give the kinds of listeners that the Bolt app is built with."""
    return {
        node.func.attr
        for node in ast.walk(ast.parse(inspect.getsource(app.build)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "app"
    }


def an_event(name: str) -> dict[str, Any]:
    kind, _, where = name.partition(".")
    types = {"channels": "channel", "groups": "group", "im": "im", "mpim": "mpim"}
    message = {
        "channel": "C1",
        "ts": "1700000000.000100",
        "user": "U1",
        "text": "How?",
        "event_ts": "1700000000.000100",
    }
    if kind in {"message", "app_mention"}:
        return {"type": kind, **message, **({"channel_type": types[where]} if where else {})}
    item = {"type": "message", "channel": "C1", "ts": "1700000000.000100"}
    return {"type": kind, "user": "U1", "reaction": "+1", "item": item, "event_ts": "1700000001.000100"}


def test_the_app_hears_every_event_that_is_read_and_no_others() -> None:
    assert events_read() == {name.partition(".")[0] for name in EVENTS}
    assert len(set(EVENTS)) == len(EVENTS)
    for name in EVENTS:
        assert isinstance(read.event({"event": an_event(name)}, WE), Message | Emoji), name
    assert read.event({"event": an_event("app_home_opened")}, WE) == Ignored("other_event")


def test_messages_are_heard_in_every_kind_of_conversation() -> None:
    heard = {name.partition(".")[2] for name in EVENTS if name.startswith("message.")}
    # https://docs.slack.dev/reference/events/message: one subscription for each channel_type.
    assert heard == {"channels", "groups", "im", "mpim"}


def test_every_method_that_is_called_has_its_scopes_written_down_here() -> None:
    assert methods_called() == set(SCOPES_OF_METHODS)


def test_the_app_has_the_scopes_that_events_and_methods_want_and_no_others() -> None:
    assert set(SCOPES_OF_EVENTS) == set(EVENTS)
    wanted = set(SCOPES_OF_EVENTS.values()).union(*SCOPES_OF_METHODS.values())
    assert set(SCOPES) == wanted


def test_the_simulated_slack_grants_what_the_manifest_asks_for_and_no_more() -> None:
    assert set(BOT_SCOPES.split(",")) == set(SCOPES)


@pytest.mark.parametrize("url", [None, URL], ids=["socket", "http"])
def test_there_is_a_way_in_for_each_kind_of_listener(url: str | None) -> None:
    made = manifest(url)
    heard = listeners()
    # Events are taken in by a middleware.
    assert heard == {"middleware", "action", "view"}, "the manifest has to declare what is new"
    assert made["settings"]["event_subscriptions"]["bot_events"] == list(EVENTS)
    assert made["settings"]["interactivity"]["is_enabled"] is True
    assert not {"slash_commands", "shortcuts"} & set(made["features"])


def test_every_scope_says_what_it_is_for() -> None:
    assert all(purpose and purpose[0].islower() and not purpose.endswith(".") for purpose in SCOPES.values())


# What Slack takes


@pytest.mark.parametrize("url", [None, URL], ids=["socket", "http"])
@pytest.mark.parametrize("name", ["Kapa", "x" * 35])
def test_slack_s_schema_takes_it(url: str | None, name: str) -> None:
    made = manifest(url, name=name)
    SLACK.validate(made)
    assert json.loads(json.dumps(made)) == made
    assert made["oauth_config"] == {"scopes": {"bot": sorted(SCOPES)}}


# What is changed in which object; every other part stays as it is made.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("", {"display_informations": {}}),
    ("_metadata", {"major_version": 3}),
    ("display_information", {"name": "x" * 36}),
    ("display_information", {"name": ""}),
    ("display_information", {"description": "x" * 141}),
    ("display_information", {"background_color": "#12345g"}),
    ("display_information", {"icon": "x"}),
    ("features", {"assistant": {}}),
    ("features.app_home", {"messages_tab_read_only": False}),
    ("features.app_home", {"messages_tab_enabled": "yes"}),
    ("features.bot_user", {"display_name": "x" * 81}),
    ("features.bot_user", {"always_online": 1}),
    ("oauth_config", {"scope": {}}),
    ("oauth_config.scopes", {"app": []}),
    ("oauth_config.scopes", {"bot": ["x" * 51]}),
    ("oauth_config.scopes", {"bot": "chat:write"}),
    ("settings", {"socket_mode": True}),
    ("settings", {"socket_mode_enabled": None}),
    ("settings.event_subscriptions", {"bot_events": ["app_mention", "app_mention"]}),
    ("settings.event_subscriptions", {"bot_events": ["x" * 51]}),
    ("settings.event_subscriptions", {"events": []}),
    ("settings.event_subscriptions", {"request_url": "bridge.example.com"}),
    ("settings.event_subscriptions", {"request_url": f"https://{'x' * 3500}"}),
    ("settings.interactivity", {"is_enabled": "true"}),
    ("settings.interactivity", {"enabled": True}),
    ("settings.interactivity", {"request_url": "ftp://bridge.example.com"}),
]
REQUIRED = [
    ("", "display_information"),
    ("_metadata", "major_version"),
    ("display_information", "name"),
    ("features.bot_user", "display_name"),
    ("settings.interactivity", "is_enabled"),
]


def part_of(made: dict[str, Any], where: str) -> dict[str, Any]:
    for name in filter(None, where.split(".")):
        made = made[name]
    return made


def refused_in(made: dict[str, Any]) -> str:
    """Say in which object the schema finds its one fault."""
    [error] = SLACK.iter_errors(made)
    # What fails for its own value is named itself, and not the object around it.
    names = [name for name in error.absolute_path if isinstance(name, str)]
    return ".".join(names if error.validator in {"additionalProperties", "required"} else names[:-1])


@pytest.mark.parametrize(("where", "change"), CHANGES)
def test_the_schema_refuses_what_slack_refuses(where: str, change: dict[str, Any]) -> None:
    made = manifest(URL)
    part_of(made, where).update(change)
    assert refused_in(made) == where


@pytest.mark.parametrize(("where", "name"), REQUIRED)
def test_the_schema_misses_what_slack_requires(where: str, name: str) -> None:
    made = manifest(URL)
    del part_of(made, where)[name]
    assert refused_in(made) == where


def test_socket_mode_needs_no_address() -> None:
    settings = manifest()["settings"]
    assert settings["socket_mode_enabled"] is True
    assert "request_url" not in settings["event_subscriptions"]
    assert settings["interactivity"] == {"is_enabled": True}


def test_over_http_slack_knows_the_address() -> None:
    settings = manifest(URL)["settings"]
    assert settings["socket_mode_enabled"] is False
    assert settings["event_subscriptions"]["request_url"] == URL
    assert settings["interactivity"] == {"is_enabled": True, "request_url": URL}


def test_people_can_write_to_the_app() -> None:
    home = manifest()["features"]["app_home"]
    assert (home["messages_tab_enabled"], home["messages_tab_read_only_enabled"]) == (True, False)
