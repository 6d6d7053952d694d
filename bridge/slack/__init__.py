"""Slack: `read` and `write` are pure, `chat` calls the Web API, `app`, `http` and `socket` take events in."""
