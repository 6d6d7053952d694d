"""The Bolt app: takes every event in, puts it into the inbox, and only then lets Bolt acknowledge it.

Both ways in, `http` and `socket`, dispatch to the same app. Nothing else happens on this side: what an event means is
read in `read`, what is done about it is decided in `policy`, and workers do it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import structlog
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.authorization.async_authorize import AsyncAuthorize
from slack_bolt.middleware.async_middleware import AsyncMiddleware
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from bridge import policy, redis_client
from bridge.inbox import Inbox, Item, Put
from bridge.messages import Messages
from bridge.models import Deletion, Edit, Emoji, Feedback, Message, Question, Reaction, Vote
from bridge.policy import Ask, Rules, Silence
from bridge.slack import interactions, read, write
from bridge.slack.interactions import Pressed, WantsToExplain
from bridge.slack.read import Identity, Ignored
from bridge.slack.web_api import Observe, observed
from bridge.store import Store
from bridge.work import Beside

# Slack waits three seconds (https://docs.slack.dev/apis/events-api) and sends again what it got no answer to.
TAKE_IN_SECONDS: Final = 2.5
EVENT: Final = "event_callback"
INTERACTIONS: Final = frozenset({"block_actions", "view_submission"})

Opinion = TypeVar("Opinion", Emoji, Feedback)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Intake:
    """Puts what an event or an interaction asks for into the inbox.

    `ask_why(trigger, about)` opens the modal that asks what was wrong, beside everything else. `on_event(result)` hears
    what became of each event, as a constant word, and `on_taken_in(seconds)` how long what was put into the inbox took
    to be there.
    """

    questions: Inbox
    votes: Inbox
    store: Store
    identity: Identity
    rules: Rules
    reactions: Mapping[str, Vote]
    ask_why: Callable[[str, Mapping[str, str]], None]
    on_event: Callable[[str], None] = lambda result: None
    on_taken_in: Callable[[float], None] = lambda seconds: None
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def take_in(self, body: Mapping[str, Any]) -> None:
        """Read an Events API body and put it into the inbox.

        Raises redis.RedisError or TimeoutError if that cannot be done now.
        """
        started = monotonic()
        async with asyncio.timeout(TAKE_IN_SECONDS):
            match read.event(body, self.identity):
                case Message() as message:
                    result = await self._message(message)
                case Edit() as edit:
                    result = await self._edit(edit)
                case Deletion() as deletion:
                    result = await self._deletion(deletion)
                case Emoji() as emoji:
                    result = await self._emoji(emoji)
                case read.Ignored(reason):
                    result = reason
        self._tell(result, started)
        log.debug("event_taken_in", result=result, event_id=body.get("event_id"))

    async def interact(self, body: Mapping[str, Any]) -> None:
        """Read an interaction's payload and put what it says into the inbox; raises as `take_in` does.

        Source: https://docs.slack.dev/interactivity/handling-user-interaction; what is not acknowledged is shown to the
        person as having failed, and not sent again.
        """
        started = monotonic()
        async with asyncio.timeout(TAKE_IN_SECONDS):
            match interactions.interaction(body, self.identity):
                case Pressed(feedback, trigger):
                    feedback = await self._located(feedback)
                    result = await self._feedback(feedback)
                    if feedback.reaction is Reaction.DOWNVOTE:
                        self.ask_why(trigger, interactions.about(feedback))
                case WantsToExplain(about, trigger):
                    result = "asked_why"
                    self.ask_why(trigger, about)
                case Feedback() as feedback:
                    result = await self._feedback(await self._located(feedback))
                case Ignored(reason):
                    result = reason
        self._tell(result, started)

    def _tell(self, result: str, started: float) -> None:
        # What is of no concern takes no time, and there is much of it: it would hide how slow Redis is.
        if isinstance(result, Put):
            self.on_taken_in(monotonic() - started)
        self.on_event(result)

    async def _feedback(self, feedback: Feedback) -> str:
        # Somebody who sends a modal again may have changed the words.
        said = sha256(feedback.to_json().encode()).hexdigest()[:16]
        id_ = f"{feedback.line}:{feedback.message}:{feedback.user}:said:{said}:{feedback.at}"
        return await self.votes.put(Item(id_, feedback.line, feedback.at, feedback.to_json()), seen=[id_])

    async def _message(self, message: Message) -> str:
        decision = policy.consider(message, self.rules)
        if not isinstance(decision, Ask):
            return decision
        question = decision.question
        item = Item(
            id=policy.place_mark(question),
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

    async def _edit(self, edit: Edit) -> str:
        question = policy.reconsider(edit, self.rules)
        if isinstance(question, Question):
            return await self._revise(question)
        if question in {Silence.OTHER_CHANNEL, Silence.TOO_LATE}:
            return question
        # What is no question any more is not answered; an answer that is there stays.
        return await self._revise(policy.no_longer(edit), only_in_line=True)

    async def _deletion(self, deletion: Deletion) -> str:
        return await self._revise(policy.without(deletion), is_gone=True, age_seconds=deletion.age)

    async def _revise(self, question: Question, **how: Any) -> str:
        mark = policy.place_mark(question)
        item = Item(id=mark, line=question.line, order=question.revision, payload=question.to_json())
        put = await self.questions.revise(item, message=mark, **{"is_gone": False, **how})
        if put in {Put.ACCEPTED, Put.REVISED}:
            log.info(
                "question_revised", channel=question.place.channel, thread=question.place.thread, question=question.id
            )
        return put

    async def _emoji(self, emoji: Emoji) -> str:
        if policy.meaning(emoji.name, self.reactions) is None:
            return "no_vote"
        emoji = await self._located(emoji)
        id_ = f"{emoji.line}:{emoji.message}:{emoji.user}:{emoji.name}:{emoji.is_on:d}:{emoji.at}"
        return await self.votes.put(Item(id_, emoji.line, emoji.at, emoji.to_json()), seen=[id_])

    async def _located(self, event: Opinion) -> Opinion:
        """Find which answer an event is about by now: the message may show another one when it is counted."""
        about, first = await self.store.shown(f"{event.team}:{event.channel}:{event.message}")
        return replace(event, answer=first, about=event.about if isinstance(event, Feedback) and event.about else about)


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


class _App(AsyncApp):
    """Bolt's app, without a client of the Web API for each event, which listeners could change: ours use none."""

    def _init_context(self, req: AsyncBoltRequest) -> None:
        req.context.update(logger=self.logger, token=None, client=self.client, listener_runner=self.listener_runner)


class AskWhy:
    """Opens the modal that asks what was wrong, beside everything else: a trigger is good for three seconds."""

    def __init__(
        self,
        client: AsyncWebClient,
        says: Messages,
        observe: Observe = lambda method, outcome, seconds: None,
    ) -> None:
        self._client = client
        self._says = says
        self._observe = observe
        self._beside = Beside()

    def __call__(self, trigger: str, about: Mapping[str, str]) -> None:
        """Source: https://docs.slack.dev/reference/methods/views.open."""
        self._beside.start(self._open(trigger, write.why(self._says, about)))

    async def _open(self, trigger: str, view: Mapping[str, Any]) -> None:
        await observed(self._observe, "views.open", self._client.views_open(trigger_id=trigger, view=dict(view)))

    async def close(self) -> None:
        """End what is still being opened."""
        await self._beside.close()


class _Events(AsyncMiddleware):
    """Takes every event in, and lets nothing but interactions go on to Bolt's listeners.

    To find the one for an event, and the arguments that it wants, takes Bolt longer than all else that it does.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def async_process(
        self,
        *,
        req: AsyncBoltRequest,
        resp: BoltResponse,
        next: Callable[[], Awaitable[BoltResponse | None]],  # noqa: A002 - Bolt's name
    ) -> BoltResponse | None:
        """Acknowledge what is taken in or is no event, and refuse for good what has no shape; raises as `take_in`."""
        body = req.body
        kind = str(body.get("type"))
        if kind == "app_rate_limited":
            log.warning("events_rate_limited", minute=body.get("minute_rate_limited"))
        elif kind not in {EVENT, *INTERACTIONS}:
            log.debug("payload_unused", type=kind[:50])
        elif not _has_shape(body, self._intake.identity):
            self._intake.on_event("malformed")
            return malformed()
        elif kind == EVENT:
            await self._intake.take_in(body)
        else:
            return await next()
        return BoltResponse(status=200)


def build(intake: Intake, client: AsyncWebClient, token: str) -> AsyncApp:
    """Build the Bolt app. Signatures are verified by the door (`http`) before Bolt sees anything."""
    app = _App(
        name="bridge",
        client=client,
        authorize=_Authorize(intake.identity, token),
        process_before_response=True,
        request_verification_enabled=False,
        # Slack checks the certificate of a slash command's address so; here it gets its 200 like all that is unused.
        ssl_check_enabled=False,
        attaching_function_token_enabled=False,
    )

    app.middleware(_Events(intake))

    async def on_interaction(ack: AsyncAck, body: Mapping[str, Any]) -> None:
        await intake.interact(body)
        await ack()

    app.action(re.compile(""))(on_interaction)
    app.view(re.compile(""))(on_interaction)

    @app.error
    async def on_error(error: Exception, body: Any) -> BoltResponse:
        """Say that the event was not taken in, so that Slack sends it again, or that an interaction failed."""
        if not _has_shape(body, intake.identity):
            # Bolt itself stumbles over some of these before the middleware above sees them.
            intake.on_event("malformed")
            return malformed()
        log.error("event_not_taken_in", reason=redis_client.reason(error))
        intake.on_event("failed")
        return BoltResponse(status=503)

    return app


def _has_shape(body: Any, identity: Identity) -> bool:
    if not isinstance(body, dict):
        return False
    if str(body.get("type")) in INTERACTIONS:
        return interactions.interaction(body, identity) != Ignored("malformed")
    event = body.get("event")
    return isinstance(event, dict) and isinstance(event.get("type"), str)


def malformed() -> BoltResponse:
    """Refuse a payload that sending again would not mend (https://docs.slack.dev/apis/events-api, Error handling)."""
    return BoltResponse(status=400, body="malformed payload", headers={"x-slack-no-retry": "1"})
