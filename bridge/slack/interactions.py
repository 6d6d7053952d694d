"""Reads what Slack sends when people press buttons and submit modals.

Pure: what is done about it is decided in `app` and by the journeys; what the buttons and modals look like lives in
`write`. Shapes: https://docs.slack.dev/reference/interaction-payloads.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from bridge.models import Feedback, Reaction, Reason
from bridge.slack.read import Id, Identity, Ignored, OptionalTs, Ts
from bridge.slack.write import EXPLAIN, FEEDBACK, REASONS, WHY, WORDS, WORDS_CHARACTERS


@dataclass(frozen=True, slots=True)
class Pressed:
    """A feedback button was pressed. `trigger` opens a modal within three seconds."""

    feedback: Feedback
    trigger: str


@dataclass(frozen=True, slots=True)
class WantsToExplain:
    """Someone who voted down wants to say why; `about` is what the modal is to bring back."""

    about: dict[str, str]
    trigger: str


Interaction = Pressed | WantsToExplain | Feedback | Ignored


class _User(BaseModel):
    id: Id


class _Action(BaseModel):
    action_id: Annotated[str, Field(max_length=255)]
    action_ts: Ts
    value: Annotated[str, Field(max_length=2_000)] = ""


class _Container(BaseModel):
    channel_id: Id
    message_ts: Ts
    thread_ts: OptionalTs = None


class _BlockActions(BaseModel):
    user: _User
    trigger_id: Annotated[str, Field(min_length=1, max_length=500)]
    container: _Container
    actions: Annotated[list[_Action], Field(min_length=1)]


class _About(BaseModel):
    channel: Id
    message: Ts
    at: Ts
    thread: OptionalTs = None
    about: Annotated[str, Field(max_length=200)] = ""


class _Option(BaseModel):
    value: str


class _State(BaseModel):
    value: Annotated[str | None, Field(max_length=WORDS_CHARACTERS)] = None
    selected_options: list[_Option] | None = None


class _Values(BaseModel):
    values: dict[str, dict[str, _State]]


class _View(BaseModel):
    private_metadata: str
    state: _Values


class _Submission(BaseModel):
    user: _User
    view: _View


def interaction(body: Any, identity: Identity) -> Interaction:
    """Read an interaction's payload. Whatever is not of Slack's documented shape is Ignored as `malformed`."""
    try:
        if body["type"] == "block_actions":
            if _text(body["actions"][0]["action_id"]) not in {FEEDBACK, EXPLAIN}:
                return Ignored("other_action")
            return _pressed(_BlockActions.model_validate(body), identity)
        if body["type"] == "view_submission":
            if _text(body["view"]["callback_id"]) != WHY:
                return Ignored("other_view")
            return _submitted(_Submission.model_validate(body), identity)
    except (ValidationError, ValueError, TypeError, LookupError):
        return Ignored("malformed")
    return Ignored("other_interaction")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def about(feedback: Feedback) -> dict[str, str]:
    """Give what a modal that explains `feedback` is to bring back."""
    fields = {"channel": feedback.channel, "message": feedback.message, "at": feedback.at}
    return fields | {name: value for name in ("thread", "about") if (value := getattr(feedback, name))}


def _pressed(found: _BlockActions, identity: Identity) -> Interaction:
    action, container = found.actions[0], found.container
    # The button that asks why stands in a whisper, and names the answer.
    message, _, about_ = action.value.partition(" ") if action.action_id == EXPLAIN else (container.message_ts, "", "")
    feedback = Feedback(
        team=identity.team,
        channel=container.channel_id,
        message=message,
        user=found.user.id,
        at=action.action_ts,
        reaction=Reaction(action.value) if action.action_id == FEEDBACK else Reaction.DOWNVOTE,
        thread=container.thread_ts or "",
        about=about_,
    )
    if action.action_id == FEEDBACK:
        return Pressed(feedback, found.trigger_id)
    return WantsToExplain(about(feedback), found.trigger_id)


def _submitted(found: _Submission, identity: Identity) -> Feedback:
    said = _About.model_validate(json.loads(found.view.private_metadata))
    values = {name: state for block in found.view.state.values.values() for name, state in block.items()}
    chosen = {option.value for option in values.get(REASONS, _State()).selected_options or ()}
    words = (values.get(WORDS, _State()).value or "").encode("utf-8", "replace").decode("utf-8")
    return Feedback(
        team=identity.team,
        channel=said.channel,
        message=said.message,
        user=found.user.id,
        at=said.at,
        reaction=Reaction.DOWNVOTE,
        reasons=tuple(reason for reason in Reason if reason.value in chosen),
        words=words.replace("\x00", "").strip(),
        thread=said.thread or "",
        about=said.about,
    )
