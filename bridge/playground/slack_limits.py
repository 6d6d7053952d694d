"""Slack's rate limits as far as this bridge meets them, on an injected clock.

https://docs.slack.dev/apis/web-api/rate-limits/ . Who is told of a limit, and how, is the Web API's business.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil


def _per_minute() -> dict[str, int]:
    return {
        "chat.postMessage": 300,
        "chat.update": 50,
        "chat.delete": 50,
        "chat.startStream": 20,
        "chat.stopStream": 20,
        "chat.appendStream": 100,
        "chat.postEphemeral": 100,
        "assistant.threads.setStatus": 100,
        "conversations.replies": 50,
        "conversations.history": 50,
        "conversations.info": 50,
        "conversations.list": 20,
        "users.info": 100,
        "reactions.add": 50,
        "reactions.remove": 20,
        "reactions.get": 50,
        "views.open": 100,
        "apps.connections.open": 50,
    }


@dataclass(frozen=True)
class SlackLimits:
    """How much of what Slack takes.

    `per_minute` calls of a method in any 60 s of a workspace; methods it does not name are not limited.
    chat.postMessage takes besides `posts_per_second` in each channel, after a burst of `post_burst`.
    """

    per_minute: Mapping[str, int] = field(default_factory=_per_minute)
    posts_per_second: float = 1.0
    post_burst: int = 10


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """Counts calls against `limits`; with None nothing is ever limited."""

    def __init__(self, limits: SlackLimits | None, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._windows: dict[str, deque[float]] = {}
        self._buckets: dict[str, _Bucket] = {}

    def wait(self, method: str, channel: str) -> int | None:
        """Count one call; gives None where it is within the limits, else the whole seconds to wait."""
        if self.limits is None:
            return None
        if method == "chat.postMessage" and (seconds := self._take_token(self.limits, channel)) is not None:
            return seconds
        most = self.limits.per_minute.get(method)
        return None if most is None else self._enter_window(method, most)

    def _enter_window(self, method: str, most: int) -> int | None:
        now = self._clock()
        window = self._windows.setdefault(method, deque())
        while window and window[0] <= now - 60:
            window.popleft()
        if len(window) >= most:
            return max(1, ceil(window[0] + 60 - now))
        window.append(now)
        return None

    def _take_token(self, limits: SlackLimits, channel: str) -> int | None:
        now = self._clock()
        bucket = self._buckets.setdefault(channel, _Bucket(limits.post_burst, now))
        earned = max(0.0, now - bucket.at) * limits.posts_per_second
        bucket.tokens, bucket.at = min(limits.post_burst, bucket.tokens + earned), now
        if bucket.tokens < 1:
            return max(1, ceil((1 - bucket.tokens) / limits.posts_per_second))
        bucket.tokens -= 1
        return None
