import json
from typing import Any

import pytest

from bridge.slack.http import PATH
from bridge.slack.manifest import EVENTS, SCOPES, manifest

URL = f"https://bridge.example.com{PATH}"


@pytest.mark.parametrize("url", [None, URL])
def test_the_app_has_the_scopes_and_events_of_the_bridge_and_no_others(url: str | None) -> None:
    made = manifest(url)
    assert made["oauth_config"] == {"scopes": {"bot": sorted(SCOPES)}}
    assert made["settings"]["event_subscriptions"]["bot_events"] == list(EVENTS)
    assert json.loads(json.dumps(made)) == made


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


# https://docs.slack.dev/reference/events: each event wants a scope.
WANTED = {
    "app_mention": "app_mentions:read",
    "message.channels": "channels:history",
    "message.groups": "groups:history",
    "message.im": "im:history",
    "message.mpim": "mpim:history",
    "reaction_added": "reactions:read",
    "reaction_removed": "reactions:read",
}


def test_every_event_has_its_scope() -> None:
    assert set(EVENTS) == set(WANTED)
    assert set(WANTED.values()) <= set(SCOPES)
    assert "chat:write" in SCOPES


def test_every_scope_says_what_it_is_for() -> None:
    assert all(purpose and purpose[0].islower() and not purpose.endswith(".") for purpose in SCOPES.values())


def test_names_and_texts_are_within_slack_s_limits() -> None:
    made: dict[str, Any] = manifest(name="x" * 35)
    assert made["display_information"]["name"] == made["features"]["bot_user"]["display_name"] == "x" * 35
    assert len(made["display_information"]["description"]) <= 140
    # People write to the app in its messages tab.
    home = made["features"]["app_home"]
    assert (home["messages_tab_enabled"], home["messages_tab_read_only_enabled"]) == (True, False)
