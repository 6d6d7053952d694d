"""What people press, vote and fill in on the playground's page, over its HTTP, and what a reload shows of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from bridge.playground.slack import ELSEWHERE, HELP, SHARED, SimulatedSlack
from bridge.playground.slack_page import Page
from bridge.slack.write import EXPLAIN, REASONS, WORDS
from tests.rig import GENERAL, Rig, hurry, settled
from tests.test_playground_slack import ADA, GRACE, App, app_serving, client_of
from tests.test_playground_slack_modals import BUTTONS, VIEW, last_payload
from tests.test_playground_slack_modals import REASONS as CHECKBOXES
from tests.waiting import Naps

Json = dict[str, Any]


@pytest.fixture
async def slack() -> AsyncIterator[SimulatedSlack]:
    async with SimulatedSlack(limits=None, sleep=Naps(), ack_seconds=0.5).serve() as served_slack:
        yield served_slack


@pytest.fixture
async def app(slack: SimulatedSlack) -> AsyncIterator[App]:
    async with app_serving() as one:
        slack.subscribe(one.url)
        yield one


@pytest.fixture
async def page(slack: SimulatedSlack) -> AsyncIterator[aiohttp.ClientSession]:
    async with Page(slack).serve() as page, aiohttp.ClientSession(page.url) as session:
        yield session


@pytest.fixture
async def answer(slack: SimulatedSlack) -> str:
    reply = await client_of(slack).chat_postMessage(channel=HELP, text="so", blocks=BUTTONS)
    return str(reply["ts"])


async def act(page: aiohttp.ClientSession, action: str, **fields: Any) -> tuple[int, Json]:
    body = {"user": ADA, "channel": HELP, **fields}
    async with page.post(f"/{action}", json=body) as reply:
        return reply.status, await reply.json()


async def state(page: aiohttp.ClientSession) -> Json:
    async with page.get("/state") as reply:
        found: Json = await reply.json()
    return found


async def modal(slack: SimulatedSlack, app: App, answer: str, view: Json | None = None) -> str:
    """Let Ada press a button that opens a modal, and give the modal's id."""
    await slack.press(ADA, HELP, answer, "more")
    trigger = (await last_payload(slack, app))["trigger_id"]
    opened = await client_of(slack).views_open(trigger_id=trigger, view=view or VIEW)
    return str(opened["view"]["id"])


async def test_a_button_is_pressed(slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str) -> None:
    assert await act(page, "press", ts=answer, action_id="less") == (200, {})
    payload = await last_payload(slack, app)
    assert (payload["user"]["id"], payload["actions"][0]["action_id"]) == (ADA, "less")


async def test_feedback_is_selected_told_and_shown_after_a_reload(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str
) -> None:
    async with page.get("/changes") as changes:
        await changes.content.readuntil(b"\n\n")
        for positive in (True, False, False):
            assert await act(page, "feedback", ts=answer, positive=positive) == (200, {})
        await act(page, "feedback", user=GRACE, ts=answer, positive=True)
        lines = [await asyncio.wait_for(changes.content.readuntil(b"\n\n"), 5) for _ in range(4)]
    told = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert told == [
        {"type": "feedback", "user": user, "channel": HELP, "ts": answer, "selected": selected}
        for user, selected in [(ADA, "positive"), (ADA, "negative"), (ADA, None), (GRACE, "positive")]
    ]
    assert (await state(page))["feedback_selected"] == {GRACE: {f"{HELP}:{answer}": "positive"}}


async def test_a_click_that_the_app_does_not_answer_is_said_to_have_failed(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str
) -> None:
    view_id = await modal(slack, app, answer)
    await act(page, "feedback", ts=answer, positive=True)
    app.replies = [web.Response(status=503) for _ in range(3)]
    failed = (400, {"error": "the app did not answer"})
    assert await act(page, "press", ts=answer, action_id="more") == failed
    assert await act(page, "feedback", ts=answer, positive=False) == failed
    assert await act(page, "submit", view_id=view_id, values={"text": "no"}) == failed
    shown = await state(page)
    assert shown["feedback_selected"] == {ADA: {f"{HELP}:{answer}": "positive"}}
    assert [view["id"] for view in shown["views"][ADA]] == [view_id]


async def test_an_app_that_is_silent_for_as_long_as_slack_waits_did_not_answer(
    slack: SimulatedSlack, page: aiohttp.ClientSession, answer: str
) -> None:
    assert (await act(page, "press", ts=answer, action_id="more"))[1] == {"error": "the app did not answer"}


async def test_a_modal_is_shown_filled_in_and_closed(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str
) -> None:
    view_id = await modal(slack, app, answer)
    shown = (await state(page))["views"]
    assert [view["title"]["text"] for view in shown[ADA]] == ["Tell us"]
    assert GRACE not in shown
    values = {"text": "wrong", "reasons": ["old", "wrong"]}
    assert await act(page, "submit", view_id=view_id, values=values) == (200, {})
    filled = {
        name: field
        for block in (await last_payload(slack, app))["view"]["state"]["values"].values()
        for name, field in block.items()
    }
    assert filled["text"]["value"] == "wrong"
    assert [option["value"] for option in filled["reasons"]["selected_options"]] == ["wrong", "old"]
    assert (await state(page))["views"] == {}


async def test_what_the_app_says_about_a_field_stands_in_the_modal(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str
) -> None:
    view_id = await modal(slack, app, answer)
    app.replies = [web.json_response({"response_action": "errors", "errors": {"why": "Say more."}})]
    assert await act(page, "submit", view_id=view_id, values={"text": "no"}) == (200, {})
    [view] = (await state(page))["views"][ADA]
    assert view["errors"] == {"why": "Say more."}


async def test_a_modal_is_dismissed(slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str) -> None:
    view_id = await modal(slack, app, answer)
    assert await act(page, "dismiss", user=GRACE, view_id=view_id) == (400, {"error": "view_not_found"})
    assert await act(page, "dismiss", view_id=view_id) == (200, {})
    assert (await state(page))["views"] == {}


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"text": "x" * 6}, "text is too long"),
        ({}, "text is required"),
        ({"text": ["a"]}, "text is of another kind"),
        ({"text": "a", "reasons": ["other"]}, "no such options: other"),
        ({"text": "a", "other": "b"}, "no such fields: other"),
        ({"text": 5}, "invalid_arguments"),
        ({"text": "a", "reasons": [5]}, "invalid_arguments"),
        ([], "invalid_arguments"),
        (None, "invalid_arguments"),
    ],
)
async def test_what_slack_does_not_let_pass_is_said_and_not_sent(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str, values: Any, error: str
) -> None:
    view_id = await modal(slack, app, answer)
    assert await act(page, "submit", view_id=view_id, values=values) == (400, {"error": error})
    assert [view["id"] for view in slack.views(ADA)] == [view_id]


@pytest.mark.parametrize("chosen", ["long", ["long"]])
async def test_one_choice_may_come_alone_or_in_a_list(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession, answer: str, chosen: Any
) -> None:
    element = {**CHECKBOXES["element"], "type": "radio_buttons"}
    view = {
        **VIEW,
        "blocks": [
            {**CHECKBOXES, "element": element},
            CHECKBOXES | {"element": {**CHECKBOXES["element"], "action_id": "more_reasons"}},
        ],
    }
    view_id = await modal(slack, app, answer, view)
    values = {"reasons": chosen, "more_reasons": chosen}
    assert await act(page, "submit", view_id=view_id, values=values) == (200, {})


@pytest.mark.parametrize(
    ("action", "fields", "error"),
    [
        ("press", {"ts": "1.1", "action_id": "more"}, "not_found"),
        ("press", {"action_id": "absent"}, "not_found"),
        ("press", {"action_id": "vote"}, "not_found"),
        ("press", {"action_id": "more", "user": "U0EVE"}, "channel_not_found"),
        ("press", {}, "invalid_arguments"),
        ("feedback", {"ts": "1.1", "positive": True}, "not_found"),
        ("feedback", {"positive": "yes"}, "invalid_arguments"),
        ("submit", {"view_id": "V404", "values": {}}, "not_found"),
        ("submit", {"values": {}}, "invalid_arguments"),
        ("dismiss", {"view_id": "V404"}, "view_not_found"),
        ("dismiss", {}, "invalid_arguments"),
    ],
)
async def test_what_is_not_there_cannot_be_used(
    slack: SimulatedSlack,
    app: App,
    page: aiohttp.ClientSession,
    answer: str,
    action: str,
    fields: Json,
    error: str,
) -> None:
    assert await act(page, action, **{"ts": answer, **fields}) == (400, {"error": error})
    assert [one.type for one in slack.deliveries if one.type != "message"] == []


async def test_a_reload_shows_whispers_and_which_channels_are_shared(
    slack: SimulatedSlack, app: App, page: aiohttp.ClientSession
) -> None:
    client = client_of(slack)
    await client.chat_postEphemeral(channel=HELP, user=ADA, text="thanks", thread_ts="1.1")
    channels = {channel["id"]: channel for channel in (await state(page))["channels"]}
    [whisper] = channels[HELP]["ephemerals"]
    assert (whisper["to"], whisper["text"], whisper["thread_ts"]) == (ADA, "thanks", "1.1")
    assert channels[ELSEWHERE]["ephemerals"] == []
    assert [name for name, channel in channels.items() if channel["is_shared"]] == [SHARED]


async def test_the_bonnet_wants_a_thread(page: aiohttp.ClientSession) -> None:
    for path in ("/bonnet", f"/bonnet?channel={HELP}", f"/bonnet?channel={HELP}&thread=1.1"):
        async with page.get(path) as reply:
            assert (reply.status, await reply.json()) == (400, {"error": "invalid_arguments"})


async def test_a_vote_with_its_reasons_reaches_kapa_by_the_page_alone(
    rig: Rig, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    async with rig.bridge(), Page(rig.slack).serve() as served, aiohttp.ClientSession(served.url) as page:
        say = {"user": ADA, "channel": GENERAL, "text": "How are threads stored?"}
        async with page.post("/say", json=say) as reply:
            ts = (await reply.json())["ts"]
        [found] = await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        assert await act(page, "react", channel=GENERAL, ts=found["ts"], emoji="-1::skin-tone-3") == (200, {})
        whisper = (await rig.slack.wait_for(lambda: rig.slack.ephemerals(GENERAL), 10))[0]
        assert await act(page, "press", channel=GENERAL, ts=whisper["ts"], action_id=EXPLAIN) == (200, {})
        view = (await rig.slack.wait_for(lambda: rig.slack.views(ADA), 10))[0]
        values = {WORDS: "it was Babbage", REASONS: ["incorrect"]}
        assert await act(page, "submit", channel=GENERAL, view_id=view["id"], values=values) == (200, {})
        await settled(rig, redis)
        assert await act(page, "feedback", channel=GENERAL, user=GRACE, ts=found["ts"], positive=True) == (200, {})
        await settled(rig, redis)
    votes = {person: (body["reaction"], body.get("comment")) for (_, person), body in rig.kapa.feedback.items()}
    assert votes[f"slack:T0PLAY:{GRACE}"][0] == "upvote"
    reaction, comment = votes[f"slack:T0PLAY:{ADA}"]
    assert reaction == "downvote"
    assert comment is not None
    assert (comment["issue"], comment["incorrect"]) == ("it was Babbage", True)
