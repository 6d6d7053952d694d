"""What the journeys need of a chat platform, and the ways in which it can fail. `slack/chat` is one.

A second platform is a second implementation of `Chat`; nothing here knows how any of them works.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from bridge.models import Place, Question, Reply, Whisper

Part = Mapping[str, Any]
"""One message's worth of a reply, in the platform's own form; equal parts look the same."""


class ChatError(Exception):
    """A call to the chat platform failed; `reason` is a short word that is safe to log and to store."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ChatBusyError(ChatError):
    """Nothing was done, and trying again works: after `retry_after` seconds, where the platform said so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ChatUnclearError(ChatError):
    """Nobody knows whether it was done: the connection broke, or the platform failed on its side."""


class ChatRefusedError(ChatError):
    """It was not done and never will be: the channel is gone, the bridge was removed from it, and the like."""


class MessageGoneError(ChatRefusedError):
    """The message to edit is no longer there, or can no longer be edited."""


class Extent(StrEnum):
    """How far a refusal reaches."""

    WORKSPACE = "workspace"
    CHANNEL = "channel"
    ONCE = "once"
    UNKNOWN = "unknown"


class StreamRefusedError(ChatRefusedError):
    """The platform shows no message that grows: not in this workspace or channel, or not this one."""

    def __init__(self, reason: str, extent: Extent) -> None:
        super().__init__(reason)
        self.extent = extent


class StreamEndedError(ChatRefusedError):
    """The message does not grow any further, but can be edited: it was ended, or what is shown does not go on so."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in a thread behind a question.

    `parts` has for each part number of the reply to it the ids of its messages, oldest first; `unnamed` the ids of the
    bridge's messages that name no question. `is_replied` says that a person wrote something there.
    """

    parts: Mapping[int, Sequence[str]]
    unnamed: Sequence[str] = ()
    is_replied: bool = False


class Chat(Protocol):
    """Shows replies. Every method that calls the chat raises ChatError and redis.RedisError."""

    def parts(self, reply: Reply) -> Sequence[Part]:
        """Divide a reply into messages; all but the last stay as they are while the reply's text grows."""

    async def prepare(self) -> None:
        """Learn what the next calls would have to wait for, beside something else; raises neither error."""

    async def post(self, question: Question, number: int, part: Part) -> str:
        """Post part `number` (from 0) of the reply to a question; return the new message's id."""

    async def edit(self, question: Question, number: int, message: str, part: Part) -> None:
        """Let a message show part `number` of the reply, also one that grows, which then ends; safe to repeat."""

    async def delete(self, place: Place, message: str) -> None:
        """Delete a message of the bridge; safe to repeat."""

    async def start(self, question: Question, part: Part) -> str:
        """Post a message that grows, with a draft's last part; return its id. Raises StreamRefusedError."""

    async def grow(self, place: Place, message: str, shown: Part, part: Part) -> None:
        """Add to a message that shows the draft `shown` what the draft `part` has beyond it.

        Raises StreamEndedError.
        """

    async def complete(self, question: Question, number: int, message: str, shown: Part, part: Part) -> None:
        """Let a message that shows the draft `shown` end as part `number` of the reply; raises StreamEndedError."""

    async def find(self, question: Question) -> Found:
        """Find what stands in the thread behind a question."""

    async def show_status(self, place: Place, text: str, loading: Sequence[str] = ()) -> None:
        """Show that the bridge is at work, with sentences that take turns; an empty text takes that back."""

    async def whisper(self, place: Place, user: str, whisper: Whisper) -> None:
        """Say something that only `user` sees; a place without a thread: in the channel."""

    async def thread_of(self, place: Place, message: str) -> str:
        """Give the id of the thread that a message stands in; empty: nobody knows."""
