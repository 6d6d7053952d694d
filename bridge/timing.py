"""How long a question takes, and how much of that is the bridge's own doing.

How the figures are counted lives in `metrics`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import Protocol

from bridge.rate_limit import RateLimit, Wait


class Observer(Protocol):
    """Hears of durations, in seconds. `result` and `budget` are constant words."""

    def first_text(self, seconds: float) -> None:
        """Take note of an answer's first text, so long after the question."""

    def answer(self, result: str, seconds: float) -> None:
        """Take note of a finished answer, so long after the question."""

    def added(self, seconds: float) -> None:
        """Take note of what the bridge itself added before the first text was sent."""

    def budget_wait(self, budget: str, seconds: float) -> None:
        """Take note of a wait for a turn."""


class Stopwatch:
    """Times one attempt at one question, asked at `asked_at` (seconds since the epoch), and tells the observer.

    Without an observer nothing is told: a question that was edited says nothing of how fast it was answered.
    """

    def __init__(
        self,
        observer: Observer | None,
        asked_at: float,
        *,
        clock: Callable[[], float] = time,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self._observer = observer
        self._asked_at = asked_at
        self._clock = clock
        self._monotonic = monotonic
        self._started = monotonic()
        self._waited = 0.0
        self._waits_since: float | None = None

    def pause(self) -> None:
        """From now on somebody else is waited for."""
        if self._waits_since is None:
            self._waits_since = self._monotonic()

    def resume(self) -> None:
        """What is waited for is here."""
        if self._waits_since is not None:
            self._waited += self._monotonic() - self._waits_since
            self._waits_since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for somebody else in this block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    async def turn(
        self, name: str, budget: RateLimit, who: str, on_wait: Callable[[Wait], None] = lambda _: None
    ) -> None:
        """Wait until it is the turn of `who`, as `RateLimit.acquire` does; a wait is told under the budget's name."""
        waits: list[Wait] = []

        def hear(wait: Wait) -> None:
            waits.append(wait)
            on_wait(wait)

        started = self._monotonic()
        with self.waiting():
            await budget.acquire(who, hear)
        if waits and self._observer is not None:
            self._observer.budget_wait(name, self._monotonic() - started)

    def text_is_sent(self) -> None:
        """Note that the first text goes out now."""
        if self._observer is not None:
            now = self._monotonic()
            waits = now - self._waits_since if self._waits_since is not None else 0.0
            self._observer.added(now - self._started - self._waited - waits)

    def text_is_shown(self) -> None:
        """Note that the first text is there."""
        if self._observer is not None:
            self._observer.first_text(self._since_asked())

    def finished(self, result: str) -> None:
        """Note that the reply is there whole."""
        if self._observer is not None:
            self._observer.answer(result, self._since_asked())

    def _since_asked(self) -> float:
        return max(0.0, self._clock() - self._asked_at)
