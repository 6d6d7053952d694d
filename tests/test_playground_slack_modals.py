"""The simulated Slack's people click and fill in modals as Slack lets them: over HTTP, sockets, and through Bolt."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from hypothesis import given
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bridge.playground.serving import served
from bridge.playground.slack import ELSEWHERE, HELP, SHARED, STRANGER, SimulatedSlack
from bridge.playground.slack_interactions import TRIGGER_SECONDS
from bridge.playground.slack_rules import SlackError
from bridge.playground.slack_view_rules import check_view
from tests.test_playground_slack import (
    ADA,
    GRACE,
    METADATA,
    App,
    Ears,
    anything,
    app_serving,
    client_of,
    connected,
    error_of,
)
from tests.waiting import Clock, Naps

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def option(value: str, **more: Any) -> Json:
    return {"text": plain(value.title()), "value": value, **more}


UP = {"text": plain("Good"), "value": "up:1"}
DOWN = {"text": plain("Bad"), "value": "down:1"}
FEEDBACK = {"type": "feedback_buttons", "action_id": "vote", "positive_button": UP, "negative_button": DOWN}
MORE = {"type": "button", "action_id": "more", "text": plain("More"), "value": "m"}
BUTTONS: list[Json] = [
    {"type": "section", "text": plain("x"), "accessory": MORE, "block_id": "above"},
    {
        "type": "actions",
        "elements": [
            {"type": "button", "action_id": "less", "text": plain("Less")},
            {"type": "static_select", "action_id": "pick", "options": [option("one"), option("two")]},
        ],
    },
    {"type": "context_actions", "elements": [FEEDBACK, {"type": "icon_button", "action_id": "drop", "icon": "trash"}]},
]
INPUT: Json = {
    "type": "input",
    "block_id": "why",
    "label": plain("Why?"),
    "element": {"type": "plain_text_input", "action_id": "text", "max_length": 5},
}
REASONS: Json = {
    "type": "input",
    "optional": True,
    "label": plain("Reasons"),
    "element": {
        "type": "checkboxes",
        "action_id": "reasons",
        "options": [option("wrong"), option("long"), option("old", description=plain("since 1815"))],
    },
}
VIEW: Json = {
    "type": "modal",
    "title": plain("Tell us"),
    "submit": plain("Send"),
    "callback_id": "reason",
    "private_metadata": "answer-1",
    "blocks": [INPUT, REASONS],
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def slack(clock: Clock) -> AsyncIterator[SimulatedSlack]:
    async with SimulatedSlack(limits=None, sleep=Naps(), clock=clock, ack_seconds=2.0).serve() as served_slack:
        yield served_slack


@pytest.fixture
async def app(slack: SimulatedSlack) -> AsyncIterator[App]:
    async with app_serving() as one:
        slack.subscribe(one.url)
        yield one


@pytest.fixture
def client(slack: SimulatedSlack) -> AsyncWebClient:
    return client_of(slack)


async def answer(client: AsyncWebClient, channel: str = HELP, **args: Any) -> str:
    reply = await client.chat_postMessage(channel=channel, text="so", blocks=BUTTONS, metadata=METADATA, **args)
    return str(reply["ts"])


async def last_payload(slack: SimulatedSlack, app: App) -> Json:
    await slack.delivered()
    payload: Json = json.loads(parse_qs(app.requests[-1][1].decode())["payload"][0])
    return payload


# Clicks


async def test_a_click_comes_in_slacks_shape(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    question = await slack.say(ADA, HELP, "how?")
    ts = await answer(client, thread_ts=question)
    delivery = await slack.press(GRACE, HELP, ts, "more")
    assert (delivery.type, delivery.is_acknowledged) == ("block_actions", True)
    payload = await last_payload(slack, app)
    message = payload.pop("message")
    assert (message["ts"], message["text"], "metadata" in message) == (ts, "so", False)
    assert len({block["block_id"] for block in message["blocks"]}) == 3
    at = payload["actions"][0].pop("action_ts")
    assert at > ts
    assert payload.pop("trigger_id")
    assert payload.pop("response_url").startswith(f"{slack.base_url}/actions/T0PLAY/")
    assert payload == {
        "type": "block_actions",
        "api_app_id": "A0BRIDGE",
        "token": "deprecated",
        "user": {"id": GRACE, "username": "grace", "name": "grace", "team_id": "T0PLAY"},
        "team": {"id": "T0PLAY", "domain": "playground"},
        "enterprise": None,
        "is_enterprise_install": False,
        "container": {
            "type": "message", "message_ts": ts, "channel_id": HELP, "is_ephemeral": False, "thread_ts": question,
        },
        "channel": {"id": HELP, "name": "help"},
        "state": {"values": {}},
        "actions": [
            {"type": "button", "action_id": "more", "block_id": "above", "text": plain("More"), "value": "m"}
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action_id", "value", "action"),
    [
        ("more", "forged", {"type": "button", "value": "forged"}),
        ("less", None, {"type": "button", "text": plain("Less")}),
        ("pick", "two", {"type": "static_select", "selected_option": option("two")}),
        ("drop", None, {"type": "icon_button"}),
    ],
)
async def test_every_kind_of_element_can_be_pressed(
    slack: SimulatedSlack, app: App, client: AsyncWebClient, action_id: str, value: str | None, action: Json
) -> None:
    await slack.press(ADA, HELP, await answer(client), action_id, value=value)
    (told,) = (await last_payload(slack, app))["actions"]
    assert told["action_id"] == action_id
    assert told["block_id"]
    assert told | action == told


async def test_nobody_presses_what_they_do_not_see(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    ts = await answer(client)
    ephemeral = await client.chat_postEphemeral(channel=HELP, user=ADA, text="x", blocks=BUTTONS)
    wrong = [
        (ADA, HELP, ts, "vote"), (ADA, HELP, ts, "absent"), (ADA, HELP, "1.1", "more"), (ADA, ELSEWHERE, ts, "more"),
        (STRANGER.id, HELP, ts, "more"), (GRACE, HELP, str(ephemeral["message_ts"]), "more"), (ADA, HELP, ts, "pick"),
    ]  # fmt: skip
    for user, channel, message, action_id in wrong:
        with pytest.raises(LookupError):
            await slack.press(user, channel, message, action_id)
    bare = await slack.say(ADA, HELP, "no buttons")
    with pytest.raises(LookupError):
        await slack.give_feedback(ADA, HELP, bare, True)
    await slack.delivered()
    assert [delivery.type for delivery in slack.deliveries if delivery.type != "message"] == []


async def test_an_ephemeral_is_kept_whole_and_pressed_by_its_reader(
    slack: SimulatedSlack, app: App, client: AsyncWebClient
) -> None:
    args = {"channel": HELP, "user": ADA, "thread_ts": "1.1", "text": "why?", "blocks": BUTTONS}
    ts = str((await client.api_call("chat.postEphemeral", json=args))["message_ts"])
    (seen,) = slack.ephemerals(HELP)
    assert (seen["to"], seen["ts"], seen["thread_ts"], seen["blocks"]) == (ADA, ts, "1.1", BUTTONS)
    await slack.press(ADA, HELP, ts, "more")
    payload = await last_payload(slack, app)
    assert "message" not in payload
    assert (payload["container"]["is_ephemeral"], payload["container"]["thread_ts"]) == (True, "1.1")


async def test_feedback_is_a_toggle_per_person(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    ts = await answer(client, slack.dm(ADA))
    pressed = [await slack.give_feedback(ADA, slack.dm(ADA), ts, one) for one in (True, True, True, False, False)]
    assert [delivery is not None for delivery in pressed] == [True, False, True, True, False]
    payload = await last_payload(slack, app)
    assert payload["channel"] == {"id": slack.dm(ADA), "name": "directmessage"}
    (action,) = payload["actions"]
    assert action.pop("action_ts")
    assert action.pop("block_id")
    assert action == {"type": "feedback_buttons", "action_id": "vote", **DOWN}
    shared = await answer(client, SHARED)
    for user in (ADA, STRANGER.id):
        assert await slack.give_feedback(user, SHARED, shared, True)
    assert (await last_payload(slack, app))["user"]["team_id"] == STRANGER.team


# Opening modals


async def trigger(slack: SimulatedSlack, app: App, client: AsyncWebClient, user: str = ADA) -> str:
    await slack.press(user, HELP, await answer(client), "more")
    return str((await last_payload(slack, app))["trigger_id"])


async def test_a_modal_opens_for_who_clicked(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    trigger_id = await trigger(slack, app, client)
    changes = slack.subscribe_changes()
    view = (await client.views_open(trigger_id=trigger_id, view=VIEW))["view"]
    assert view["id"].startswith("V")
    assert view | {"team_id": "T0PLAY", "callback_id": "reason", "private_metadata": "answer-1"} == view
    assert (view["state"], bool(view["hash"]), view["title"]) == ({"values": {}}, True, VIEW["title"])
    assert (view["blocks"][0], bool(view["blocks"][1]["block_id"])) == (INPUT, True)
    assert (slack.views(ADA), slack.views(GRACE)) == ([view], [])
    assert await anext(changes) == {"type": "view", "to": ADA, "view": view}
    with pytest.raises(LookupError):
        slack.dismiss(GRACE, view["id"])
    slack.dismiss(ADA, view["id"])
    assert slack.views(ADA) == []
    assert await anext(changes) == {"type": "view_closed", "to": ADA, "view_id": view["id"]}
    assert slack.deliveries[-1].type == "block_actions"
    with pytest.raises(LookupError):
        await slack.submit(ADA, view["id"], {})


async def test_trigger_ids_are_good_once_and_for_three_seconds(
    slack: SimulatedSlack, app: App, client: AsyncWebClient, clock: Clock
) -> None:
    used, late = await trigger(slack, app, client), await trigger(slack, app, client)
    clock.now += TRIGGER_SECONDS
    view = json.dumps(VIEW)
    assert await error_of(client.views_open(trigger_id=used, view={"type": "modal"})) == "invalid_arguments"
    await client.api_call("views.open", params={"trigger_id": used, "view": view})
    assert await error_of(client.views_open(trigger_id=used, view=VIEW)) == "exchanged_trigger_id"
    clock.now += 0.1
    assert await error_of(client.views_open(trigger_id=late, view=VIEW)) == "expired_trigger_id"
    assert await error_of(client.views_open(trigger_id="1.2.x", view=VIEW)) == "invalid_trigger_id"
    for args in ({"view": VIEW}, {"trigger_id": late}, {"trigger_id": 5, "view": VIEW}):
        assert await error_of(client.api_call("views.open", json=args)) == "invalid_arguments"
    assert len(slack.views(ADA)) == 1


def with_input(**changes: Any) -> Json:
    return VIEW | {"blocks": [INPUT | changes]}


def with_element(**changes: Any) -> Json:
    return with_input(element=INPUT["element"] | changes)


def with_options(*options: Any) -> Json:
    return with_input(element={"type": "checkboxes", "options": list(options)})


@pytest.mark.parametrize(
    "view",
    [
        VIEW,
        {"type": "modal", "title": plain("x" * 24), "blocks": [{"type": "divider"}] * 100},
        VIEW | {"submit": plain("x" * 24), "close": plain("x" * 24)},
        VIEW | {"callback_id": "x" * 255, "private_metadata": "x" * 3_000},
        with_input(label=plain("x" * 2_000), hint=plain("x" * 2_000), optional=True),
        with_element(action_id="x" * 255, placeholder=plain("x" * 150), max_length=3_000, multiline=True),
        with_options(*[option("x" * 75, description=plain("x" * 75))] * 10),
        with_options({"text": plain("x"), "value": "x" * 150}),
        with_input(element={"type": "static_select", "options": [option("x")] * 11}),
        with_input(element={"type": "radio_buttons", "options": [option("x")] * 10}),
    ],
)
def test_views_within_the_limits_are_taken(view: Json) -> None:
    check_view(view)


@pytest.mark.parametrize(
    "view",
    [
        None,
        VIEW | {"type": "home"},
        VIEW | {"title": None},
        VIEW | {"title": plain("")},
        VIEW | {"title": plain("x" * 25)},
        VIEW | {"title": {"type": "mrkdwn", "text": "x"}},
        VIEW | {"submit": None},
        VIEW | {"submit": plain("x" * 25)},
        VIEW | {"close": plain("x" * 25)},
        VIEW | {"callback_id": "x" * 256},
        VIEW | {"private_metadata": "x" * 3_001},
        VIEW | {"private_metadata": 5},
        VIEW | {"blocks": []},
        VIEW | {"blocks": [{"type": "divider"}] * 101},
        VIEW | {"blocks": [{"type": "marquee"}]},
        with_input(label=None),
        with_input(label=plain("x" * 2_001)),
        with_input(hint=plain("x" * 2_001)),
        with_input(optional="yes"),
        with_input(element=None),
        with_input(element={"type": "slider"}),
        with_element(action_id="x" * 256),
        with_element(placeholder=plain("x" * 151)),
        with_element(max_length=0),
        with_element(max_length=3_001),
        with_element(max_length=True),
        with_options(),
        with_options(*[option("x")] * 11),
        with_options({"text": plain("x" * 76), "value": "x"}),
        with_options({"text": plain("x"), "value": "x" * 151}),
        with_options(option("x", description=plain("x" * 76))),
    ],
)
def test_views_beyond_the_limits_are_refused(view: Any) -> None:
    with pytest.raises(SlackError, match="invalid_arguments") as caught:
        check_view(view)
    assert caught.value.body["response_metadata"]["messages"][0].startswith("[ERROR] ")


@given(anything)
def test_nothing_but_a_refusal_comes_of_any_parts_of_a_view(value: Any) -> None:
    for view in (value, VIEW | {"title": value}, VIEW | {"blocks": value}, with_input(element=value)):
        try:
            check_view(view)
        except SlackError as refusal:
            assert refusal.code == "invalid_arguments"  # noqa: PT017 both ways are fine, other errors are not


# Filling them in


async def opened(slack: SimulatedSlack, app: App, client: AsyncWebClient, view: Json = VIEW) -> str:
    trigger_id = await trigger(slack, app, client)
    return str((await client.views_open(trigger_id=trigger_id, view=view))["view"]["id"])


async def test_a_submission_comes_in_slacks_shape(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    view_id = await opened(slack, app, client)
    (view,) = slack.views(ADA)
    delivery = await slack.submit(ADA, view_id, {"text": "wrong", "reasons": ["old", "wrong"]})
    assert (delivery.type, delivery.is_acknowledged) == ("view_submission", True)
    payload = await last_payload(slack, app)
    assert payload.pop("trigger_id")
    old = option("old", description=plain("since 1815"))
    values = {
        "why": {"text": {"type": "plain_text_input", "value": "wrong"}},
        view["blocks"][1]["block_id"]: {
            "reasons": {"type": "checkboxes", "selected_options": [option("wrong"), old]}
        },
    }  # fmt: skip
    assert payload == {
        "type": "view_submission",
        "api_app_id": "A0BRIDGE",
        "token": "deprecated",
        "user": {"id": ADA, "username": "ada", "name": "ada", "team_id": "T0PLAY"},
        "team": {"id": "T0PLAY", "domain": "playground"},
        "enterprise": None,
        "is_enterprise_install": False,
        "view": view | {"state": {"values": values}},
        "response_urls": [],
    }
    assert slack.views(ADA) == []


async def test_fields_left_alone_keep_what_was_in_them(slack: SimulatedSlack, app: App, client: AsyncWebClient) -> None:
    fields = [
        {"type": "plain_text_input", "action_id": "a", "initial_value": "x"},
        {"type": "plain_text_input", "action_id": "b"},
        {"type": "radio_buttons", "action_id": "c", "options": [option("one")], "initial_option": option("one")},
        {"type": "static_select", "action_id": "d", "options": [option("one"), option("two")]},
        {"type": "static_select", "action_id": "e", "options": [option("one")]},
        {"type": "checkboxes", "options": [option("one")], "initial_options": [option("one")]},
    ]
    blocks = [{"type": "input", "label": plain("?"), "optional": True, "element": field} for field in fields]
    view_id = await opened(slack, app, client, VIEW | {"blocks": [{"type": "divider"}, *blocks]})
    await slack.submit(ADA, view_id, {"d": "two"})
    values = (await last_payload(slack, app))["view"]["state"]["values"]
    states = [state for block in values.values() for state in block.values()]
    assert [{key: value for key, value in state.items() if key != "type"} for state in states] == [
        {"value": "x"}, {"value": None}, {"selected_option": option("one")}, {"selected_option": option("two")},
        {"selected_option": None}, {"selected_options": [option("one")]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"text": ""},
        {"text": "x" * 6},
        {"text": "x", "reasons": ["absent"]},
        {"text": "x", "absent": "y"},
    ],
)
async def test_slack_itself_holds_back_what_is_not_filled_in(
    slack: SimulatedSlack, app: App, client: AsyncWebClient, values: Json
) -> None:
    view_id = await opened(slack, app, client)
    with pytest.raises(ValueError, match=r"required|too long|no such"):
        await slack.submit(ADA, view_id, values)
    assert slack.deliveries[-1].type == "block_actions"
    assert len(slack.views(ADA)) == 1


OTHER = VIEW | {"title": plain("Thanks"), "blocks": [{"type": "divider"}]}


@pytest.mark.parametrize(
    ("status", "body", "titles", "errors"),
    [
        (200, "", [], None),
        (200, "{}", [], None),
        (200, "null", [], None),
        (200, '{"response_action": "clear"}', [], None),
        (200, '{"response_action": "errors", "errors": {"why": "No."}}', ["Tell us"], {"why": "No."}),
        (200, json.dumps({"response_action": "update", "view": OTHER}), ["Thanks"], None),
        (200, '{"response_action": "update", "view": {}}', ["Tell us"], None),
        (200, '{"response_action": "dance"}', ["Tell us"], None),
        (200, "what?", ["Tell us"], None),
        (500, "", ["Tell us"], None),
    ],
)
async def test_a_modal_closes_or_stays_as_the_app_says(
    slack: SimulatedSlack,
    app: App,
    client: AsyncWebClient,
    status: int,
    body: str,
    titles: list[str],
    errors: Json | None,
) -> None:
    view_id = await opened(slack, app, client)
    app.replies = [web.Response(status=status, text=body)]
    assert (await slack.submit(ADA, view_id, {"text": "x"})).status == status
    assert [view["title"]["text"] for view in slack.views(ADA)] == titles
    assert [view.get("errors") for view in slack.views(ADA)] == [errors] * len(titles)
    if errors:
        await slack.submit(ADA, view_id, {"text": "y"})
        assert "errors" not in (await last_payload(slack, app))["view"]
        assert slack.views(ADA) == []


async def test_clicks_and_submissions_travel_over_a_socket(slack: SimulatedSlack, client: AsyncWebClient) -> None:
    ears = Ears()
    async with connected(slack, ears):
        ts = await answer(client)
        assert await slack.give_feedback(ADA, HELP, ts, False)
        await client.views_open(trigger_id=ears.heard[-1].payload["trigger_id"], view=VIEW)
        (view,) = slack.views(ADA)
        await slack.submit(ADA, view["id"], {"text": "x"})
    assert [(one.type, one.payload["type"]) for one in ears.heard if one.type == "interactive"] == [
        ("interactive", "block_actions"), ("interactive", "view_submission"),
    ]  # fmt: skip
    assert slack.views(ADA) == []


# Through Bolt

Ack = Callable[..., Awaitable[object]]


def bolt_app(slack: SimulatedSlack, client: AsyncWebClient) -> AsyncApp:
    """Give an app that asks why, takes no for an answer only once, and then lets go."""
    bolt = AsyncApp(signing_secret=slack.signing_secret, client=client)

    async def ask(ack: Ack, body: Json, client: AsyncWebClient) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=VIEW)

    async def take(ack: Ack, view: Json) -> None:
        if view["state"]["values"]["why"]["text"]["value"] == "no":
            await ack(response_action="errors", errors={"why": "Why not?"})
        else:
            await ack()

    bolt.action("vote")(ask)
    bolt.view("reason")(take)
    return bolt


@pytest.mark.parametrize("way", ["http", "socket"])
async def test_a_real_bolt_app_asks_why(slack: SimulatedSlack, client: AsyncWebClient, clock: Clock, way: str) -> None:
    # Bolt holds signatures against the real time.
    clock.now = time.time()
    bolt = bolt_app(slack, client)
    async with AsyncExitStack() as stack:
        if way == "http":
            url = await stack.enter_async_context(served(bolt.web_app("/slack/events"), "127.0.0.1", 0))
            slack.subscribe(f"{url}/slack/events")
        else:
            handler = AsyncSocketModeHandler(bolt, slack.app_token)
            stack.push_async_callback(handler.close_async)
            await handler.connect_async()  # type: ignore[no-untyped-call]  # Bolt's own gap
        delivery = await slack.give_feedback(ADA, HELP, await answer(client), False)
        assert delivery is not None
        assert (delivery.way, delivery.is_acknowledged) == (way, True)
        (view,) = await slack.wait_for(lambda: slack.views(ADA))
        await slack.submit(ADA, view["id"], {"text": "no"})
        assert slack.views(ADA)[0]["errors"] == {"why": "Why not?"}
        await slack.submit(ADA, view["id"], {"text": "well"})
        assert slack.views(ADA) == []
