"""What Slack's public JSON schema says of the parts of an app manifest that the bridge's own uses.

Names, types, lengths, patterns and what is required are those of
https://github.com/slackapi/manifest-schema/blob/main/schemas/manifest.schema.2.0.0.json, which refuses unknown names
everywhere; https://docs.slack.dev/reference/app-manifest explains them. Names that the bridge's manifest does not use
are left out, so that they are refused as well until they are written down here.
"""

from typing import Any

BOOLEAN = {"type": "boolean"}


def text(least: int = 0, most: int = 0, pattern: str = "") -> dict[str, Any]:
    bounds = {"minLength": least, "maxLength": most, "pattern": pattern}
    return {"type": "string", **{name: value for name, value in bounds.items() if value}}


def texts(most_items: int, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": text(most=50), "maxItems": most_items, **more}


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


REQUEST_URL = text(most=3500, pattern=r"^https?:\/\/")

SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **closed(
        {
            # The schema of all versions (manifest.schema.json) chooses this one by it.
            "_metadata": closed({"major_version": {"const": 2}}, "major_version"),
            "display_information": closed(
                {
                    "name": text(1, 35),
                    "description": text(1, 140),
                    "background_color": text(4, 7, "^#[0-9a-fA-F]{3}([0-9a-fA-F]{3})?$"),
                },
                "name",
            ),
            "features": closed(
                {
                    "app_home": closed(
                        {
                            "home_tab_enabled": BOOLEAN,
                            "messages_tab_enabled": BOOLEAN,
                            "messages_tab_read_only_enabled": BOOLEAN,
                        }
                    ),
                    "bot_user": closed({"display_name": text(1, 80), "always_online": BOOLEAN}, "display_name"),
                }
            ),
            "oauth_config": closed({"scopes": closed({"bot": texts(255)})}),
            "settings": closed(
                {
                    "event_subscriptions": closed(
                        {"request_url": REQUEST_URL, "bot_events": texts(100, uniqueItems=True)}
                    ),
                    "interactivity": closed({"is_enabled": BOOLEAN, "request_url": REQUEST_URL}, "is_enabled"),
                    "org_deploy_enabled": BOOLEAN,
                    "socket_mode_enabled": BOOLEAN,
                    "token_rotation_enabled": BOOLEAN,
                }
            ),
        },
        "_metadata",
        "display_information",
    ),
}
