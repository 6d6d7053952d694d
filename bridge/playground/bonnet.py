"""Under the bonnet: what happened about one thread, on all sides of the bridge, and both of its mappings.

How each thing is shown, and whether it is about a thread, is `bonnet_rows`' business.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.models import Place
from bridge.playground import bonnet_rows as rows
from bridge.playground.bonnet_rows import Subject
from bridge.playground.kapa import SimulatedKapa
from bridge.playground.redis_watch import RedisWatch
from bridge.playground.serving import Json
from bridge.playground.slack import SimulatedSlack
from bridge.store import NO_ANSWER, Store, message_key

_ROWS = 400
_ANSWERS = 50
_MAPPINGS_KEPT = 200
_PATIENCE_SECONDS = 0.5


class Bonnet:
    """Tells what happened. `kapa` is None where it is the real one, of which nothing is seen here."""

    def __init__(
        self,
        slack: SimulatedSlack,
        kapa: SimulatedKapa | None,
        watch: RedisWatch,
        redis: Redis,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._slack = slack
        self._kapa = kapa
        self._watch = watch
        self._store = Store(redis, ttl_seconds=0)
        self._clock = clock
        self._mappings: OrderedDict[tuple[str, str], Json] = OrderedDict()

    async def look(self, channel: str, thread: str) -> Json:
        """Give both mappings of a thread and the newest rows about it, sorted by time; raises SlackError."""
        subject = self._subject(channel, thread)
        mapping = await self._mapping(subject)
        subject.answers |= {str(answer["question_answer_id"]) for answer in mapping["answers"]}
        if mapping["kapa"]:
            subject.kapa_threads.add(str(mapping["kapa"]))
        return {
            "now": self._clock(),
            "thread": {"slack": thread, "kapa": mapping["kapa"]},
            "answers": mapping["answers"],
            "rows": self._rows(subject),
        }

    def _subject(self, channel: str, thread: str) -> Subject:
        place = self._slack.workspace.channel(channel)
        messages = {thread, *place.replies.get(thread, ())}
        messages |= rows.messages_of(iter(self._slack.calls), place.id, thread)
        return Subject(self._slack.team_id, place.id, thread, messages)

    def _rows(self, subject: Subject) -> list[Json]:
        found = [rows.event_row(attempt) for attempt in self._slack.attempts if subject.has_event(attempt)]
        found += [rows.call_row(call) for call in self._slack.calls if subject.has_call(call)]
        found += [rows.step_row(step) for step in self._watch.steps if subject.has_step(step)]
        found += self._kapa_rows(subject)
        return sorted(found, key=lambda row: float(row["at"]))[-_ROWS:]

    def _kapa_rows(self, subject: Subject) -> list[Json]:
        if self._kapa is None:
            return []
        found = []
        for call in self._kapa.calls:
            if subject.has_kapa_call(call):
                found.append(rows.kapa_row(call))
                # A vote on an answer comes after it.
                subject.answers |= {call.asked.question_answer_id} if call.asked else set()
        return found

    async def _mapping(self, subject: Subject) -> Json:
        """Read what the bridge remembers of the thread; what was read before where Redis does not answer."""
        key = (subject.channel, subject.thread)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                self._mappings[key] = await self._read_mapping(subject)
        except (RedisError, TimeoutError):
            return self._mappings.get(key, {"kapa": None, "answers": []})
        self._mappings.move_to_end(key)
        while len(self._mappings) > _MAPPINGS_KEPT:
            self._mappings.popitem(last=False)
        return self._mappings[key]

    async def _read_mapping(self, subject: Subject) -> Json:
        place = Place(subject.team, subject.channel, subject.thread)
        kapa = await self._store.kapa_thread(f"{subject.team}:{subject.channel}:{subject.thread}")
        answers = []
        for message in sorted(subject.messages)[-_ANSWERS:]:
            ballot = await self._store.ballot(message_key(place, message), "")
            if ballot.question_answer_id not in (None, "", NO_ANSWER):
                answers.append({"message": message, "question_answer_id": ballot.question_answer_id})
        return {"kapa": kapa, "answers": answers}
