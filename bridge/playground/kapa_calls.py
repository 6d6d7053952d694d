"""What was asked of the simulated Kapa, as onlookers see it: the latest requests, refused ones included.

Nothing is decided here; `kapa` answers.
"""

import itertools
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from bridge.playground.kapa_speech import Asked
from bridge.playground.serving import Json

_KEPT = 1_000
_LABELS = {"/chat/stream/": "chat (stream)", "/chat/": "chat", "/feedback/upsert/": "feedback upsert"}


@dataclass(slots=True)
class KapaCall:
    """One request from its beginning; times are Unix seconds. `fault` is what was made to go wrong, `asked` what was
    accepted, `status` None while there is no answer, or where the client went away before it was whole.
    """

    number: int
    label: str
    at: float
    body: Json
    ended: float | None = None
    status: int | None = None
    fault: str = ""
    asked: Asked | None = None

    @property
    def outcome(self) -> str:
        """How it ended, in a word; empty while it goes on."""
        if self.ended is None:
            return ""
        if self.fault and self.status in (None, 200):
            return self.fault
        if self.status is None:
            return "gone"
        return "ok" if self.status < 300 else str(self.status)


CALL = web.RequestKey("call", KapaCall)
"""Where a request carries its KapaCall."""


class KapaCalls:
    """The latest requests for answers and votes, oldest first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.latest: deque[KapaCall] = deque(maxlen=_KEPT)
        self._clock = clock
        self._numbers = itertools.count(1)

    @web.middleware
    async def watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Keep the request and what becomes of it."""
        label = next((label for end, label in _LABELS.items() if request.path.endswith(end)), "")
        if not label or request.method != "POST":
            return await handler(request)
        call = KapaCall(next(self._numbers), label, self._clock(), _object(await request.read()))
        request[CALL] = call
        self.latest.append(call)
        try:
            response = await handler(request)
            call.status = response.status
        finally:
            call.ended = self._clock()
        return response


def _object(raw: bytes) -> Json:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
