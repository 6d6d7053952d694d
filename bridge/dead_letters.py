"""Dead letters: what the bridge gave up, why, and the way back into the inbox or out of it for good.

When something is given up is decided by the journeys; `inbox` writes the dead letters and names the keys.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis

from bridge import inbox_scripts as scripts
from bridge.inbox import DEAD, DEAD_LETTER_DAYS, NOTES_SECONDS, TAG, TICKETS_OF_A_CHANNEL, Item, Kind, latest_key

# What Redis takes for the whole id of a stream's entry; anything else names no dead letter.
_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that was given up, and why. `at` is in milliseconds since the epoch."""

    id: str
    at: int
    kind: Kind
    reason: str
    item: Item
    notes: dict[str, str]
    entry: str


class DeadLetters:
    """The dead letters of one Redis. Every method raises redis.RedisError when Redis cannot be reached."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._revive = redis.register_script(scripts.bound(scripts.REVIVE, TICKETS_OF_A_CHANNEL))

    async def read(self, first: str = "-", last: str = "+") -> list[DeadLetter]:
        """Give the dead letters from id `first` to id `last`, oldest first; what is too old is none any more."""
        entries = cast("list[tuple[str, dict[str, str]]]", await self._redis.xrange(DEAD, first, last))
        oldest = await self._oldest() if entries else 0
        letters = [_dead_letter(id_, fields) for id_, fields in entries]
        return [letter for letter in letters if letter.at >= oldest]

    async def trim(self) -> int:
        """Drop what is too old, and return how many dead letters are left.

        `inbox` trims as it writes one; this is for when nothing more is given up.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xtrim(DEAD, minid=f"{await self._oldest()}", approximate=False)
            pipe.xlen(DEAD)
            _, left = await pipe.execute()
        return int(left)

    async def _oldest(self) -> int:
        """Give the time, in milliseconds on Redis' clock, from which on dead letters are kept."""
        seconds, _ = await self._redis.time()
        return (seconds - DEAD_LETTER_DAYS * 86_400) * 1000

    async def drop(self, ids: Sequence[str]) -> list[str]:
        """Drop dead letters for good; return the ids of those there were."""
        return [id_ for id_ in ids if _ID.fullmatch(id_) and await self._redis.xdel(DEAD, id_)]

    async def retry(self, ids: Sequence[str]) -> list[str]:
        """Put dead letters back into their lines, with what was remembered of them; return the ids put back.

        One whose question was edited or deleted since is dropped: it would undo that.
        """
        known = [letter for id_ in ids if _ID.fullmatch(id_) for letter in await self.read(id_, id_)]
        return [letter.id for letter in known if await self._retry(letter)]

    async def _retry(self, letter: DeadLetter) -> bool:
        lines = f"{TAG}:{letter.kind}"
        keys = [DEAD, f"{lines}:ready", f"{lines}:line:{letter.item.line}", f"{lines}:notes:{letter.item.id}"]
        keys.append(latest_key(letter.item.id))
        notes = [part for pair in letter.notes.items() for part in pair]
        args: list[str | int] = [letter.id, letter.item.line, letter.entry, NOTES_SECONDS, *notes]
        return bool(await self._revive(keys=keys, args=args))


def _dead_letter(id_: str, fields: Mapping[str, str]) -> DeadLetter:
    try:
        item = Item.from_entry(fields["line"], fields["entry"])
    except (ValueError, TypeError):
        item = Item(id="", line=fields["line"], order="", payload=fields["entry"])
    kind, notes = Kind(fields["kind"]), json.loads(fields["notes"])
    return DeadLetter(id_, int(id_.partition("-")[0]), kind, fields["reason"], item, notes, fields["entry"])
