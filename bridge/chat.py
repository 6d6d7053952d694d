"""What the journeys need of a chat platform, and the ways in which it can fail. `slack/chat` is one.

A second platform is a second implementation of `Chat`; nothing here knows how any of them works.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bridge.models import Place, Question, Reply

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


class Chat(Protocol):
    """Shows replies. Every method that calls the chat raises ChatError and redis.RedisError."""

    def parts(self, reply: Reply) -> Sequence[Part]:
        """Divide a reply into messages; all but the last stay as they are while the reply's text grows."""

    async def post(self, question: Question, number: int, part: Part) -> str:
        """Post part `number` (from 0) of the reply to a question; return the new message's id."""

    async def edit(self, place: Place, message: str, part: Part) -> None:
        """Replace a message of the bridge; safe to repeat."""

    async def delete(self, place: Place, message: str) -> None:
        """Delete a message of the bridge; safe to repeat."""

    async def find(self, question: Question) -> Mapping[int, Sequence[str]]:
        """Find the messages that were posted in reply to a question: for each part number the ids, oldest first."""

    async def show_status(self, place: Place, text: str) -> None:
        """Show that the bridge is at work; an empty text takes that back."""
