"""The app manifest: creates the Slack app with the scopes and events that the bridge uses, and no others.

Source: https://docs.slack.dev/reference/app-manifest.
"""

from typing import Any, Final

SCOPES: Final = {
    "app_mentions:read": "hear where it is mentioned",
    "channels:history": "hear messages in public channels it is in",
    "chat:write": "answer, and show that it is at work",
    "groups:history": "hear messages in private channels it is in",
    "im:history": "hear direct messages",
    "mpim:history": "hear messages in group direct messages it is in",
    "reactions:read": "hear votes",
}
EVENTS: Final = (
    "app_mention",
    "message.channels",
    "message.groups",
    "message.im",
    "message.mpim",
    "reaction_added",
    "reaction_removed",
)


def manifest(events_url: str | None = None, *, name: str = "Kapa") -> dict[str, Any]:
    """Build the manifest: for HTTP mode with the address of `POST /slack/events`, without one for Socket Mode."""
    events: dict[str, Any] = {"bot_events": list(EVENTS)}
    interactivity: dict[str, Any] = {"is_enabled": True}
    if events_url is not None:
        events["request_url"] = interactivity["request_url"] = events_url
    return {
        "_metadata": {"major_version": 2},
        "display_information": {
            "name": name,
            "description": "Answers questions from your documentation",
            "background_color": "#1f2430",
        },
        "features": {
            "app_home": {
                "home_tab_enabled": False,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": name, "always_online": True},
        },
        "oauth_config": {"scopes": {"bot": sorted(SCOPES)}},
        "settings": {
            "event_subscriptions": events,
            "interactivity": interactivity,
            "org_deploy_enabled": False,
            "socket_mode_enabled": events_url is None,
            "token_rotation_enabled": False,
        },
    }
