"""The Bolt app: takes every event in, puts it into the inbox, and only then lets Bolt acknowledge it.

Both ways in, `http` and `socket`, dispatch to the same app. Nothing else happens on this side: what an event means is
read in `read`, what is done about it is decided in `policy`, and workers do it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.authorization.async_authorize import AsyncAuthorize
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from bridge import policy, redis_client
from bridge.inbox import Inbox, Item, Put
from bridge.models import Emoji, Message, Vote
from bridge.policy import Ask, Rules
from bridge.slack import read
from bridge.slack.read import Identity
from bridge.store import Store

# Slack waits three seconds (https://docs.slack.dev/apis/events-api) and sends again what it got no answer to.
TAKE_IN_SECONDS: Final = 2.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Intake:
    """Puts what an event asks for into the inbox.

    `on_event(result)` hears what became of each event, as a constant word.
    """

    questions: Inbox
    votes: Inbox
    store: Store
    identity: Identity
    rules: Rules
    reactions: Mapping[str, Vote]
    on_event: Callable[[str], None] = lambda result: None
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def take_in(self, body: Mapping[str, Any]) -> None:
        """Read an Events API body and put it into the inbox.

        Raises redis.RedisError or TimeoutError if that cannot be done now.
        """
        async with asyncio.timeout(TAKE_IN_SECONDS):
            match read.event(body, self.identity):
                case Message() as message:
                    result = await self._message(message)
                case Emoji() as emoji:
                    result = await self._emoji(emoji)
                case read.Ignored(reason):
                    result = reason
        self.on_event(result)
        log.debug("event_taken_in", result=result, event_id=body.get("event_id"))

    async def _message(self, message: Message) -> str:
        decision = policy.consider(message, self.rules)
        if not isinstance(decision, Ask):
            return decision
        question = decision.question
        item = Item(
            id=f"{message.team}:{message.channel}:{message.id}",
            line=question.line,
            order=question.id,
            payload=question.to_json(),
        )
        # One after the other, so that quick messages of a conversation are put in the order in which they came.
        async with self._turns.setdefault(question.line, asyncio.Lock()):
            put = await self.questions.put(
                item,
                seen=policy.marks(message),
                thread_seconds=self.store.ttl_seconds,
                must_know_thread=decision.must_know_thread,
            )
        if put is Put.ACCEPTED:
            place = question.place
            log.info("question_accepted", channel=place.channel, thread=place.thread, question=question.id)
        return put

    async def _emoji(self, emoji: Emoji) -> str:
        if policy.meaning(emoji.name, self.reactions) is None:
            return "no_vote"
        first = await self.store.first_message(f"{emoji.team}:{emoji.channel}:{emoji.message}")
        emoji = replace(emoji, answer=first)
        id_ = f"{emoji.line}:{emoji.message}:{emoji.user}:{emoji.name}:{emoji.is_on:d}:{emoji.at}"
        return await self.votes.put(Item(id_, emoji.line, emoji.at, emoji.to_json()), seen=[id_])


class _Authorize(AsyncAuthorize):
    """Answers from what `auth.test` said at the start: Bolt's own way loses the event when that call fails."""

    def __init__(self, identity: Identity, token: str) -> None:
        self._result = AuthorizeResult(
            enterprise_id=None,
            team_id=identity.team,
            bot_user_id=identity.user,
            bot_id=identity.bot,
            bot_token=token,
        )

    async def __call__(self, **_: Any) -> AuthorizeResult:
        return self._result


def build(intake: Intake, client: AsyncWebClient, token: str) -> AsyncApp:
    """Build the Bolt app. Signatures are verified by the door (`http`) before Bolt sees anything."""
    app = AsyncApp(
        name="bridge",
        client=client,
        authorize=_Authorize(intake.identity, token),
        process_before_response=True,
        request_verification_enabled=False,
    )

    @app.middleware
    async def sort_out(body: Any, next: Callable[[], Awaitable[None]]) -> BoltResponse | None:  # noqa: A002 - Bolt's name
        """Acknowledge what is no event, and refuse for good what has no shape."""
        kind = body.get("type")
        if kind == "app_rate_limited":
            log.warning("events_rate_limited", minute=body.get("minute_rate_limited"))
            return BoltResponse(status=200)
        if kind != "event_callback":
            log.debug("payload_unused", type=str(kind)[:50])
            return BoltResponse(status=200)
        if not _has_shape(body):
            intake.on_event("malformed")
            return malformed()
        await next()
        return None

    # One listener for every event: one that matched nothing would be a 404, and be sent again.
    @app.event(re.compile(""))
    async def on_event(body: Mapping[str, Any]) -> None:
        await intake.take_in(body)

    @app.error
    async def on_error(error: Exception, body: Any) -> BoltResponse:
        """Say that the event was not taken in, so that Slack sends it again."""
        if not _has_shape(body):
            # Bolt itself stumbles over some of these before the middleware above sees them.
            intake.on_event("malformed")
            return malformed()
        log.error("event_not_taken_in", reason=redis_client.reason(error))
        intake.on_event("failed")
        return BoltResponse(status=503)

    return app


def _has_shape(body: Any) -> bool:
    event = body.get("event") if isinstance(body, dict) else None
    return isinstance(event, dict) and isinstance(event.get("type"), str)


def malformed() -> BoltResponse:
    """Refuse a payload that sending again would not mend (https://docs.slack.dev/apis/events-api, Error handling)."""
    return BoltResponse(status=400, body="malformed payload", headers={"x-slack-no-retry": "1"})
