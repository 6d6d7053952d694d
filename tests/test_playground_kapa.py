"""The simulated Kapa behaves as the documented Query API does, and answers from Markdown pages."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.playground.kapa import Asked, Pace, SimulatedKapa
from bridge.playground.kapa_rules import pieces
from bridge.playground.knowledge import Knowledge, Reply, Section, sources, split
from tests.waiting import Clock, Naps

PAGES = {
    "README.md": "# Lighthouse\n\nLighthouse guides ships. See [the guide](docs/guide.md#lamp).\n",
    "docs/guide.md": """Before anything else.

# Guide

## Lamp

Clean the lamp with a soft cloth:

1. switch it off
2. wipe it, see [storage](storage.md) and [the makers](https://lamps.example/)

```sh
# this is no heading
lamp --clean  # [x](storage.md)
```

## Lamp in Docker

Run the lamp in Docker with `docker compose up`.

### Foghorn & Bell!

The foghorn sounds every 30 seconds.

> # Quoted, no section
>
> Every ship is glad of it.

## Empty
""",
    "docs/storage.md": "# Storage\n\nKeep spare bulbs in a dry cupboard.\n\n" + "Bulbs are fragile. " * 150,
}
PERSON = "slack:T0PLAY:U0ADA"
PROJECT = "/query/v1/projects/00000000-0000-4000-8000-000000000001"
THREADS = "/query/v1/threads"
UPSERT = "/query/v1/feedback/upsert/"
INTEGRATION = "00000000-0000-4000-8000-000000000002"
QUESTION: dict[str, Any] = {"query": "How do I clean the lamp?", "integration_id": INTEGRATION}

NO_DICTIONARY = "Invalid data. Expected a dictionary."
NO_OTHER = 'Invalid pk "other" - object does not exist.'


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[SimulatedKapa, aiohttp.ClientSession]]:
    headers = {"X-API-KEY": "playground-key"}
    async with SimulatedKapa(Knowledge(PAGES), **options).serve() as kapa:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(kapa.api_url, headers=headers, timeout=timeout) as session:
            yield kapa, session


async def post(session: aiohttp.ClientSession, path: str, body: Any, **options: Any) -> tuple[int, Any]:
    async with session.post(path, json=body, **options) as reply:
        return reply.status, await reply.json(content_type=None)


async def ask(session: aiohttp.ClientSession, query: str, thread: str = "") -> dict[str, Any]:
    base = f"{THREADS}/{thread}" if thread else PROJECT
    status, body = await post(session, f"{base}/chat/", {"query": query, "integration_id": INTEGRATION})
    assert status == 200
    assert isinstance(body, dict)
    return body


def records(raw: bytes) -> list[dict[str, Any]]:
    assert raw.endswith(b"\xe2\x90\x9e")
    return [json.loads(record)["chunk"] for record in raw.split(b"\xe2\x90\x9e")[:-1]]


# Chat


async def test_a_question_and_its_follow_up_share_a_thread() -> None:
    async with serving() as (kapa, session):
        first = await ask(session, "How do I clean the lamp?")
        second = await ask(session, "and in docker?", first["thread_id"])
    assert first.keys() == {"answer", "thread_id", "question_answer_id", "is_uncertain", "relevant_sources"}
    assert "lamp --clean" in first["answer"]
    assert "docker compose up" in second["answer"]
    assert second["thread_id"] == first["thread_id"]
    assert second["question_answer_id"] != first["question_answer_id"]
    assert [(one.query, one.is_follow_up, one.thread_id) for one in kapa.asked] == [
        ("How do I clean the lamp?", False, first["thread_id"]),
        ("and in docker?", True, first["thread_id"]),
    ]
    assert [turn.question for turn in kapa.threads[first["thread_id"]].turns] == [one.query for one in kapa.asked]


async def test_a_stream_has_kapas_records() -> None:
    body = {**QUESTION, "user": {"unique_client_id": PERSON}, "metadata": {"origin_url": "https://a.example/p1"}}
    async with serving() as (kapa, session):
        async with session.post(f"{PROJECT}/chat/stream/", json=body) as reply:
            assert reply.headers["Transfer-Encoding"] == "chunked"
            chunks = records(await reply.read())
        whole = await ask(session, QUESTION["query"])
    texts = [chunk["content"]["text"] for chunk in chunks if chunk["type"] == "partial_answer"]
    assert len(texts) > 5
    assert "".join(texts) == whole["answer"]
    assert [chunk["type"] for chunk in chunks[-3:]] == ["relevant_sources", "metadata", "identifiers"]
    assert [chunk["stream_end"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-3]["content"]["relevant_sources"] == whole["relevant_sources"]
    assert chunks[-2]["content"] == {"is_uncertain": False}
    asked = kapa.asked[0]
    assert chunks[-1]["content"] == {"thread_id": asked.thread_id, "question_answer_id": asked.question_answer_id}
    assert (asked.user, asked.metadata, asked.integration_id) == (body["user"], body["metadata"], INTEGRATION)
    assert (asked.is_streamed, kapa.in_flight) == (True, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "problem"),
    [
        (f"{PROJECT}/chat/", {}, 400, {"query": ["This field is required."]}),
        (f"{PROJECT}/chat/", {"query": None}, 400, {"query": ["This field is required."]}),
        (f"{PROJECT}/chat/", {"query": " "}, 400, {"query": ["This field may not be blank."]}),
        (f"{PROJECT}/chat/", {"query": 5}, 400, {"query": ["Not a valid string."]}),
        (f"{PROJECT}/chat/", [], 400, {"non_field_errors": [NO_DICTIONARY]}),
        (f"{PROJECT}/chat/stream/", {"query": "x", "user": "ada"}, 400, {"user": [NO_DICTIONARY]}),
        (f"{PROJECT}/chat/", {"query": "x", "integration_id": "other"}, 400, {"integration_id": [NO_OTHER]}),
        ("/query/v1/projects/other/chat/", QUESTION, 404, {"detail": "Not found."}),
        ("/query/v1/projects/other/retrieval/", QUESTION, 404, {"detail": "Not found."}),
        (f"{THREADS}/other/chat/", QUESTION, 404, {"detail": "Not found."}),
        (f"{THREADS}/other/chat/stream/", QUESTION, 404, {"detail": "Not found."}),
        ("/query/v1/nonsense/", QUESTION, 404, {"detail": "Not found."}),
    ],
)  # fmt: skip
async def test_refusals(path: str, body: Any, status: int, problem: dict[str, Any]) -> None:
    async with serving() as (kapa, session):
        assert await post(session, path, body) == (status, problem)
        assert not kapa.asked
        assert not kapa.threads


async def test_keys_slashes_and_accept_headers_matter() -> None:
    async with serving() as (kapa, session):
        path = f"{PROJECT}/chat/stream/"
        assert (await post(session, path, QUESTION, headers={"X-API-KEY": ""}))[0] == 401
        assert (await post(session, path, QUESTION, headers={"X-API-KEY": "wrong"}))[0] == 403
        assert (await post(session, path, QUESTION, headers={"Accept": "text/event-stream"}))[0] == 406
        async with session.post(path[:-1], json=QUESTION, allow_redirects=False) as reply:
            assert (reply.status, reply.headers["Location"]) == (301, path)
        async with session.post(path, data=b"{{{") as reply:
            assert reply.status == 400
        assert kapa.refused == {401: 1, 403: 1, 406: 1, 400: 1}


async def test_only_so_many_requests_a_minute() -> None:
    clock = Clock()
    async with serving(requests_per_minute=2, clock=clock) as (kapa, session):
        await ask(session, "one")
        clock.now += 20
        await ask(session, "two")
        async with session.post(f"{PROJECT}/chat/", json=QUESTION) as reply:
            assert (reply.status, reply.headers["Retry-After"]) == (429, "40")
        clock.now += 40
        await ask(session, "three")
        assert [one.query for one in kapa.asked] == ["one", "two", "three"]


# The other endpoints


async def test_integrations_are_a_plain_list() -> None:
    async with serving() as (_, session):
        async with session.get(f"{PROJECT}/integrations/") as reply:
            assert [one["id"] for one in await reply.json()] == [INTEGRATION]
        async with session.get("/query/v1/projects/other/integrations/") as reply:
            assert reply.status == 404


async def test_feedback_is_kept_per_answer_and_person() -> None:
    async with serving() as (kapa, session):
        answer = (await ask(session, "lamp"))["question_answer_id"]
        vote = {"question_answer": answer, "reaction": "upvote", "user_identifier": PERSON}
        comment = {"issue": "no", "incorrect": True, "irrelevant": False, "unaddressed": False}
        changed = {**vote, "reaction": "downvote", "comment": comment}
        assert (await post(session, UPSERT, vote))[0] == 201
        assert (await post(session, UPSERT, changed))[0] == 200
        assert (await post(session, UPSERT, {**vote, "user_identifier": "slack:T0PLAY:U0GRACE"}))[0] == 201
        assert kapa.feedback[answer, PERSON] == changed
        assert len(kapa.feedback) == 2
        assert [one["reaction"] for one in kapa.feedback_log] == ["upvote", "downvote", "upvote"]


@pytest.mark.parametrize(
    ("fields", "field_at_fault"),
    [
        ({"question_answer": "unknown"}, "question_answer"),
        ({"question_answer": None}, "question_answer"),
        ({"reaction": "removed"}, "reaction"),
        ({"user_identifier": ""}, "user_identifier"),
        ({"comment": "bad"}, "comment"),
        ({"comment": {"issue": 5}}, "comment"),
        ({"comment": {"incorrect": "yes"}}, "comment"),
    ],
)
async def test_feedback_that_is_refused(fields: dict[str, Any], field_at_fault: str) -> None:
    async with serving() as (kapa, session):
        answer = (await ask(session, "lamp"))["question_answer_id"]
        vote = {"question_answer": answer, "reaction": "upvote", "user_identifier": PERSON} | fields
        status, body = await post(session, UPSERT, vote)
        assert (status, list(body)) == (400, [field_at_fault])
        assert kapa.feedback == {}


async def test_threads_can_be_read_and_sources_retrieved() -> None:
    async with serving() as (_, session):
        first = await ask(session, "lamp")
        async with session.get(f"{THREADS}/{first['thread_id']}/") as reply:
            (turn,) = (await reply.json())["question_answers"]
        assert (turn["id"], turn["answer"]) == (first["question_answer_id"], first["answer"])
        async with session.get(f"{THREADS}/other/") as reply:
            assert reply.status == 404
        status, found = await post(session, f"{PROJECT}/retrieval/", {"query": "foghorn"})
        assert (status, found[0]["title"]) == (200, "Guide|Foghorn & Bell!")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
bodies = anything | st.dictionaries(
    st.sampled_from(["query", "integration_id", "metadata", "user", "question_answer", "reaction", "user_identifier"]),
    anything,
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([f"{PROJECT}/chat/", f"{PROJECT}/retrieval/", UPSERT]), bodies), max_size=15))
async def test_any_body_is_answered_or_refused(requests: list[tuple[str, Any]]) -> None:
    async with serving() as (_, session):
        for path, body in requests:
            status, reply = await post(session, path, body)
            assert status in (200, 400)
            assert reply is not None


# What tests do to it


@pytest.mark.parametrize(
    ("kind", "status", "is_asked"),
    [("429", 429, False), ("500", 500, False), ("502html", 502, False), ("garbage", 200, False)],
)
@pytest.mark.parametrize("path", [f"{PROJECT}/chat/", f"{PROJECT}/chat/stream/"])
async def test_faults_that_answer(kind: str, status: int, is_asked: bool, path: str) -> None:
    async with serving() as (kapa, session):
        kapa.fault(kind, retry_after="7")
        async with session.post(path, json=QUESTION) as reply:
            raw = await reply.read()
            assert (reply.status, bool(kapa.asked)) == (status, is_asked)
            assert reply.headers.get("Retry-After") == ("7" if kind == "429" else None)
        assert b"identifiers" not in raw
        assert (await ask(session, "lamp"))["answer"]


@pytest.mark.parametrize(("kind", "is_asked"), [("drop_before", False), ("drop_after", True)])
async def test_faults_that_break_the_connection(kind: str, is_asked: bool) -> None:
    async with serving() as (kapa, session):
        kapa.fault(kind, times=2)
        for path in (f"{PROJECT}/chat/", f"{PROJECT}/chat/stream/"):
            with pytest.raises(aiohttp.ClientError):
                await post(session, path, QUESTION)
        assert len(kapa.asked) == 2 * is_asked
        assert kapa.in_flight == 0
        kapa.fault(kind, endpoint="feedback")
        answer = (await ask(session, "lamp"))["question_answer_id"]
        vote = {"question_answer": answer, "reaction": "upvote", "user_identifier": PERSON}
        with pytest.raises(aiohttp.ClientError):
            await post(session, UPSERT, vote)
        assert len(kapa.feedback) == is_asked


async def test_a_hanging_request_ends_with_its_client() -> None:
    async with serving() as (kapa, session):
        kapa.fault("hang")
        with pytest.raises(TimeoutError):
            await post(session, f"{PROJECT}/chat/", QUESTION, timeout=aiohttp.ClientTimeout(total=0.1))
        assert not kapa.asked


@pytest.mark.parametrize(("kind", "last"), [("truncate", "partial_answer"), ("error_record", "error")])
async def test_streams_that_end_badly(kind: str, last: str) -> None:
    async with serving() as (kapa, session):
        kapa.fault(kind)
        async with session.post(f"{PROJECT}/chat/stream/", json=QUESTION) as reply:
            chunks = records(await reply.read())
        assert chunks[0]["type"] == "partial_answer"
        assert chunks[-1]["type"] == last
        assert "identifiers" not in {chunk["type"] for chunk in chunks}
        kapa.fault("drop_midway")
        with pytest.raises(aiohttp.ClientError):
            async with session.post(f"{PROJECT}/chat/stream/", json=QUESTION) as reply:
                await reply.read()
        kapa.fault(kind)
        async with session.post(f"{PROJECT}/chat/", json=QUESTION) as reply:
            text = await reply.text()
        if kind == "truncate":
            with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
                json.loads(text)
        else:
            assert reply.status == 500


async def test_a_forgotten_thread_and_an_uncertain_answer() -> None:
    async with serving() as (kapa, session):
        first = await ask(session, "lamp")
        kapa.fault("forget_thread")
        for _ in range(2):
            status, body = await post(session, f"{THREADS}/{first['thread_id']}/chat/", QUESTION)
            assert (status, body) == (404, {"detail": "Not found."})
        kapa.fault("uncertain")
        assert (await ask(session, "lamp"))["is_uncertain"] is True
        kapa.fault("500", times=3)
        kapa.clear_faults()
        assert (await ask(session, "lamp"))["is_uncertain"] is False


async def test_answers_can_be_given() -> None:
    def shout(asked: Asked) -> str:
        return asked.query.upper()

    async with serving() as (kapa, session):
        kapa.answer_with("So.")
        assert (await ask(session, "lamp"))["answer"] == "So."
        kapa.answer_with(shout)
        assert (await ask(session, "lamp"))["answer"] == "LAMP"
        kapa.answer_with(Reply("Perhaps.", is_uncertain=True))
        assert (await ask(session, "lamp"))["is_uncertain"] is True
        kapa.answer_with(None)
        assert "soft cloth" in (await ask(session, "lamp"))["answer"]


async def test_answers_can_be_held_midway() -> None:
    async with serving() as (kapa, session):
        kapa.answer_with("one two three four five six seven")
        kapa.hold(after_pieces=1)
        async with session.post(f"{PROJECT}/chat/stream/", json=QUESTION) as reply:
            first = await reply.content.readuntil(b"\xe2\x90\x9e")
            assert records(first)[0]["content"]["text"] == "one two three "
            await kapa.wait_for(lambda: kapa.held == 1)
            assert kapa.in_flight == kapa.in_flight_of(kapa.asked[0].thread_id) == 1
            kapa.release()
            rest = records(await reply.read())
        assert rest[-1]["type"] == "identifiers"
        assert (kapa.held, kapa.in_flight) == (0, 0)


async def test_it_counts_how_many_are_answered_at_once() -> None:
    async with serving() as (kapa, session):
        thread = (await ask(session, "lamp"))["thread_id"]
        assert (kapa.max_in_flight, kapa.max_in_flight_per_thread) == (1, 1)
        kapa.hold()
        tasks = [asyncio.create_task(ask(session, "lamp")) for _ in range(2)]
        await kapa.wait_for(lambda: kapa.held == 2)
        assert (kapa.max_in_flight, kapa.max_in_flight_per_thread) == (2, 1)
        tasks += [asyncio.create_task(ask(session, "lamp", thread)) for _ in range(2)]
        await kapa.wait_for(lambda: kapa.held == 4)
        kapa.release()
        await asyncio.gather(*tasks)
        assert (kapa.max_in_flight, kapa.max_in_flight_per_thread) == (4, 2)


async def test_a_client_that_goes_away_is_not_in_flight_any_more() -> None:
    async with serving() as (kapa, session):
        kapa.hold()
        task = asyncio.create_task(ask(session, "lamp"))
        await kapa.wait_for(lambda: kapa.held == 1)
        task.cancel()
        await kapa.wait_for(lambda: kapa.in_flight == 0)
        assert kapa.asked[0].ended is not None


async def test_it_takes_its_time() -> None:
    naps = Naps()
    async with serving(pace=Pace(first_text=4.5, between_pieces=0.25), sleep=naps) as (kapa, session):
        kapa.answer_with("one two three four five six seven")
        async with session.post(f"{PROJECT}/chat/stream/", json=QUESTION) as reply:
            await reply.read()
        assert naps.asked == [4.5, 0.25, 0.25]
        await ask(session, "lamp")
        assert naps.asked[3:] == [4.5 + 3 * 0.25]


@given(st.text(), st.integers(min_value=1, max_value=5))
def test_pieces_are_the_text(text: str, words: int) -> None:
    assert "".join(pieces(text, words)) == text


# What it knows


def test_pages_are_cut_at_their_headings() -> None:
    sections = split("docs/guide.md", PAGES["docs/guide.md"])
    assert [(one.page, one.title, one.url) for one in sections] == [
        ("Guide", "Guide", "https://docs.example.com/guide"),
        ("Guide", "Lamp", "https://docs.example.com/guide#lamp"),
        ("Guide", "Lamp in Docker", "https://docs.example.com/guide#lamp-in-docker"),
        ("Guide", "Foghorn & Bell!", "https://docs.example.com/guide#foghorn--bell"),
    ]
    assert "# this is no heading" in sections[1].text


def test_links_between_pages_become_addresses_but_code_stays() -> None:
    text = split("docs/guide.md", PAGES["docs/guide.md"])[1].text
    assert "[storage](https://docs.example.com/storage)" in text
    assert "[the makers](https://lamps.example/)" in text
    assert "# [x](storage.md)" in text
    assert "(https://docs.example.com/guide#lamp)" in split("README.md", PAGES["README.md"])[0].text


def test_an_answer_is_a_whole_section_with_its_citation() -> None:
    reply = Knowledge(PAGES).answer("How do I clean the lamp?")
    assert "1. switch it off\n2. wipe it" in reply.text
    assert "```sh\n# this is no heading\nlamp --clean  # [x](storage.md)\n```" in reply.text
    assert "([Lamp](https://docs.example.com/guide#lamp))" in reply.text
    assert not reply.is_uncertain


@pytest.mark.parametrize("query", ["What is the best pizza in town?", "", "why?", "?!", "zyzzyva"])
def test_what_it_does_not_know_it_says(query: str) -> None:
    reply = Knowledge(PAGES).answer(query)
    assert (reply.is_uncertain, reply.sections) == (True, ())
    assert "could not find" in reply.text
    assert sources(reply) == []


def test_a_follow_up_is_understood_from_the_question_before() -> None:
    knowledge = Knowledge(PAGES)
    assert knowledge.search("and in docker?", "How do I run the lamp?")[0].title == "Lamp in Docker"
    assert knowledge.search("why?", "foghorn seconds")[0].title == "Foghorn & Bell!"
    assert knowledge.search("pizza", "foghorn") == []


def test_sources_come_with_kapas_duplicates() -> None:
    found = sources(Knowledge(PAGES).answer("spare bulbs cupboard"))
    urls = [one["source_url"] for one in found]
    assert urls.count("https://docs.example.com/storage") > 1
    assert found[-1] == {
        "source_url": "https://docs.example.com/storage#", "title": "Storage|Storage", "contains_internal_data": False,
    }  # fmt: skip


def test_a_long_section_is_cut_between_blocks() -> None:
    pages = {"a.md": "# A\n\n" + "\n\n".join(f"Paragraph {number} about bulbs. " * 20 for number in range(60))}
    text = Knowledge(pages).answer("bulbs").text
    assert 4_000 < len(text) < 7_000
    assert text.endswith("bulbs. ([A](https://docs.example.com/a))")


KNOWLEDGE = Knowledge(PAGES)


@given(st.text() | st.from_regex(r"""["'*()^:+-]|NEAR\(|AND|OR|NOT|lamp|text:""", fullmatch=False))
def test_no_query_breaks_the_search(query: str) -> None:
    reply = KNOWLEDGE.answer(query, query[::-1])
    assert reply.text
    assert reply.is_uncertain == (not reply.sections)


@given(st.text(alphabet="#ab \n`-=>[](|)\t", max_size=80))
def test_no_page_breaks_the_cutting(text: str) -> None:
    sections = split("page.md", text)
    assert all(isinstance(one, Section) and one.text for one in sections)
    assert Knowledge({"page.md": text}).search("ab") is not None


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("how the bridge keeps its order", {"Order without locks"}),
        ("How does the bridge keep its order?", {"Order without locks"}),
        ("what happens when Redis goes away", {"When something fails", "Redis"}),
        ("What happens when Redis goes away?", {"When something fails", "Redis"}),
        ("What happens when Kapa is down?", {"When something fails"}),
        ("How are votes counted?", {"Votes"}),
        ("What is a dead letter?", {"Dead letters"}),
    ],
)
def test_it_finds_the_right_section_of_the_projects_own_docs(query: str, titles: set[str]) -> None:
    reply = Knowledge.of_project().answer(query)
    assert reply.sections[0].title in titles
    assert {"Try it", "Read on"}.isdisjoint(section.title for section in reply.sections)


def test_a_word_of_the_title_counts_more_than_a_repeated_one_of_the_text() -> None:
    pages = {"a.md": "# A\n\n## Bells\n\nThey ring.\n\n## Lamps\n\n" + "Ship bells, ship bells and a lamp. " * 5}
    assert Knowledge(pages).search("ship bell")[0].title == "Lamps"
    assert Knowledge(pages).search("bell")[0].title == "Bells"


def test_a_section_can_be_left_out() -> None:
    assert Knowledge(PAGES, left_out={"Lamp"}).search("clean the lamp")[0].title != "Lamp"


def test_paragraphs_come_on_one_line_and_code_stays_as_it_is() -> None:
    page = "# Page\n\nOne\ntwo\n\n- three\n  four\n- five\n\n```\nsix\nseven\n```\n"
    [section] = split("page.md", page)
    assert section.text == "One two\n\n- three four\n- five\n\n```\nsix\nseven\n```"
