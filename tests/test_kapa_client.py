import asyncio
import gzip
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from json import dumps, loads
from random import Random
from typing import Any

import pytest

from bridge.kapa import client as kapa_client
from bridge.kapa.client import KapaClient
from bridge.kapa.wire import (
    DELIMITER,
    Integration,
    KapaError,
    KapaMisconfigured,
    KapaRefused,
    KapaThreadUnknown,
    KapaUnavailable,
)
from bridge.models import Answer, Query, Reaction, Reason, Source, Vote

KEY = "made-up-key-0123456789"
FIRST = Query(text="How do I start?", person="slack:T1:U1", origin_url="https://acme.slack.com/archives/C1/p1")
NEXT = Query(text="And then?", person="slack:T1:U1", origin_url="https://acme.slack.com/p2", thread_id="t1")
VOTE = Vote(Reaction.DOWNVOTE, frozenset({Reason.INCORRECT}), "Wrong page")
ANSWER = Answer("To get 🎉 started", "t1", "q1", sources=(Source("https://d/", "D"),))
PATIENCE = 10.0
SILENCE = 0.4


def record(kind: str, content: object, *, stream_end: bool = False) -> bytes:
    fields = {"chunk": {"type": kind, "content": content, "stream_end": stream_end}}
    return dumps(fields, ensure_ascii=False).encode() + DELIMITER


def text(delta: str) -> bytes:
    return record("partial_answer", {"text": delta})


IDS = record("identifiers", {"thread_id": "t1", "question_answer_id": "q1"}, stream_end=True)
SOURCES = record("relevant_sources", {"relevant_sources": [{"source_url": "https://d/", "title": "D"}]})
STREAM = text("To get ") + text("🎉 started") + SOURCES + record("metadata", {"is_uncertain": False}) + IDS
WHOLE = dumps(
    {
        "answer": ANSWER.text,
        "thread_id": "t1",
        "question_answer_id": "q1",
        "relevant_sources": [{"source_url": "https://d/", "title": "D"}],
    }
).encode()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Connection:
    """One accepted connection: what a reply may do to it, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def chunks(self, *parts: bytes) -> None:
        for part in parts:
            await self.send(b"%x\r\n%b\r\n" % (len(part), part))

    async def whole(self, body: bytes, status: str = "200 OK", **headers: str) -> None:
        await self.head(status, Content_Length=str(len(body)), **headers)
        await self.send(body)

    async def streamed(self, *parts: bytes) -> None:
        await self.head(Transfer_Encoding="chunked")
        await self.chunks(*parts)
        await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        self.writer.transport.abort()


Reply = Callable[[Request, Connection], Awaitable[None]]


@dataclass
class RawServer:
    """HTTP by hand on 127.0.0.1, for bytes that no well-behaved server would send."""

    reply: Reply
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await self.read(reader):
                self.requests.append(request)
                await self.reply(request, Connection(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.gone.set()
            writer.close()

    async def read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        return Request(method, path, headers, loads(body) if body else None)


@asynccontextmanager
async def raw_server(reply: Reply) -> AsyncGenerator[RawServer, None]:
    kapa = RawServer(reply)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(kapa.handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    kapa.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield kapa
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    broken = [result for result in results if isinstance(result, Exception)]
    assert broken == []


@dataclass
class Calls:
    """The client under test, and what it reported of its calls."""

    client: KapaClient
    observed: list[tuple[str, str]]


@asynccontextmanager
async def calling(url: str, **options: Any) -> AsyncGenerator[Calls, None]:
    observed: list[tuple[str, str]] = []

    def observe(endpoint: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        observed.append((endpoint, outcome))

    async with KapaClient(
        api_url=url, api_key=KEY, project_id="p1", integration_id="i1", observe=observe, **options
    ) as client:
        async with asyncio.timeout(PATIENCE):
            yield Calls(client, observed)


async def all_of(client: KapaClient, query: Query = FIRST) -> list[str | Answer]:
    return [item async for item in client.stream(query)]


async def failure_of(call: Awaitable[object]) -> KapaError:
    with pytest.raises(KapaError) as caught:
        await call
    error = caught.value
    for link in (error, error.__cause__, error.__context__):
        assert KEY not in f"{link!s} {link!r}"
    assert len(error.reason) <= 200
    assert error.reason.isprintable()
    return error


def always(status: str, body: bytes = b"", **headers: str) -> Reply:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.whole(body, status, **headers)

    return reply


async def wait_forever(_: Request, connection: Connection) -> None:
    await asyncio.Event().wait()


# --- what is sent ---


async def answer_everything(request: Request, connection: Connection) -> None:
    if request.path.endswith("/chat/stream/"):
        await connection.streamed(STREAM)
    elif request.path.endswith("/chat/"):
        await connection.whole(WHOLE)
    elif request.path.endswith("/integrations/"):
        await connection.whole(b'[{"id":"i1","name":"Slack bridge","type":"API"}]')
    else:
        await connection.whole(b"never read", "201 Created")


@pytest.mark.parametrize("slashes", ["", "/", "///"])
async def test_every_call_goes_where_it_belongs(slashes: str) -> None:
    async with raw_server(answer_everything) as kapa, calling(kapa.url + slashes) as calls:
        assert await calls.client.integrations() == [Integration("i1", "Slack bridge", "API")]
        assert await calls.client.ask(FIRST) == ANSWER
        assert await calls.client.ask(NEXT) == ANSWER
        assert await all_of(calls.client) == ["To get ", "🎉 started", ANSWER]
        assert await all_of(calls.client, NEXT) == ["To get ", "🎉 started", ANSWER]
        await calls.client.upsert_feedback("q1", "slack:T1:U2", VOTE)
        await calls.client.integrations()
    assert [(request.method, request.path) for request in kapa.requests] == [
        ("GET", "/query/v1/projects/p1/integrations/"),
        ("POST", "/query/v1/projects/p1/chat/"),
        ("POST", "/query/v1/threads/t1/chat/"),
        ("POST", "/query/v1/projects/p1/chat/stream/"),
        ("POST", "/query/v1/threads/t1/chat/stream/"),
        ("POST", "/query/v1/feedback/upsert/"),
        ("GET", "/query/v1/projects/p1/integrations/"),
    ]
    assert [request.headers["x-api-key"] for request in kapa.requests] == [KEY] * 7
    assert [request.headers["accept"] for request in kapa.requests] == ["application/json"] * 7
    assert [request.body["integration_id"] for request in kapa.requests[1:5]] == ["i1"] * 4
    assert kapa.requests[1].body == kapa.requests[3].body
    assert kapa.requests[5].body == {
        "question_answer": "q1",
        "reaction": "downvote",
        "user_identifier": "slack:T1:U2",
        "comment": {"issue": "Wrong page", "incorrect": True, "irrelevant": False, "unaddressed": False},
    }
    assert kapa.connections == 1
    endpoints = ["integrations", "chat", "chat", "chat_stream", "chat_stream", "feedback", "integrations"]
    assert calls.observed == [(endpoint, "ok") for endpoint in endpoints]


async def test_an_address_with_a_path_keeps_it() -> None:
    async with raw_server(answer_everything) as kapa, calling(kapa.url + "/gateway/kapa/") as calls:
        await calls.client.integrations()
    assert kapa.requests[0].path == "/gateway/kapa/query/v1/projects/p1/integrations/"


@pytest.mark.parametrize("thread_id", ["../../feedback", "a/b", "a%2Fb", "a?b#c", "ü\r\nX: y", "%2e%2e"])
async def test_a_hostile_id_stays_one_part_of_the_path(thread_id: str) -> None:
    async with raw_server(answer_everything) as kapa, calling(kapa.url) as calls:
        await calls.client.ask(Query(text="q", person="", origin_url="", thread_id=thread_id))
    assert re.fullmatch(r"/query/v1/threads/[A-Za-z0-9._~%-]+/chat/", kapa.requests[0].path)
    assert "x" not in kapa.requests[0].headers


async def test_an_impossible_thread_id_is_an_unknown_thread() -> None:
    query = Query(text="q", person="", origin_url="", thread_id="..")
    async with raw_server(answer_everything) as kapa, calling(kapa.url) as calls:
        assert isinstance(await failure_of(calls.client.ask(query)), KapaThreadUnknown)
        assert isinstance(await failure_of(all_of(calls.client, query)), KapaThreadUnknown)
    assert kapa.requests == []
    assert calls.observed == [("chat", "thread_unknown"), ("chat_stream", "thread_unknown")]


async def test_an_earlier_comment_is_cleared_on_demand() -> None:
    async with raw_server(answer_everything) as kapa, calling(kapa.url) as calls:
        await calls.client.upsert_feedback("q1", "U", Vote(Reaction.UPVOTE))
        await calls.client.upsert_feedback("q1", "U", Vote(Reaction.UPVOTE), clear_comment=True)
    assert "comment" not in kapa.requests[0].body
    assert kapa.requests[1].body["comment"]["issue"] == ""


async def test_any_text_can_be_asked() -> None:
    async with raw_server(answer_everything) as kapa, calling(kapa.url) as calls:
        query = Query(text="\ud800 \x00 😀" * 1000, person="", origin_url="")
        assert await calls.client.ask(query) == ANSWER
    assert kapa.requests[0].body["query"] == query.text


# --- streaming ---


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 100_000])
async def test_a_stream_in_chunks_of_any_size(size: int) -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.streamed(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert await all_of(calls.client) == ["To get ", "🎉 started", ANSWER]
        assert await all_of(calls.client) == ["To get ", "🎉 started", ANSWER]
    assert kapa.connections == 1


async def test_the_first_delta_arrives_before_the_rest_is_sent() -> None:
    seen = asyncio.Event()

    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        await connection.chunks(text("first "))
        await seen.wait()
        await connection.chunks(text("second"), IDS)
        await connection.send(b"0\r\n\r\n")

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        items = calls.client.stream(FIRST)
        assert await anext(items) == "first "
        seen.set()
        assert [item async for item in items] == ["second", Answer("first second", "t1", "q1")]


async def test_an_ended_stream_is_an_answer_even_if_the_connection_is_not_closed_well() -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        await connection.chunks(STREAM)
        await asyncio.Event().wait()

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert (await all_of(calls.client))[-1] == ANSWER
        assert (await all_of(calls.client))[-1] == ANSWER
    assert kapa.connections == 2
    assert calls.observed == [("chat_stream", "ok")] * 2


async def test_a_connection_is_used_again_when_its_stream_closes_a_little_later() -> None:
    seen = asyncio.Event()

    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        await connection.chunks(STREAM)
        await seen.wait()
        await connection.send(b"0\r\n\r\n")

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        items = calls.client.stream(FIRST)
        assert await anext(items) == "To get "
        seen.set()
        assert [item async for item in items][-1] == ANSWER
        assert (await all_of(calls.client))[-1] == ANSWER
    assert kapa.connections == 1


async def test_a_last_record_without_delimiter_counts() -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.streamed(STREAM[: -len(DELIMITER)])

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert (await all_of(calls.client))[-1] == ANSWER


async def close_early(items: AsyncGenerator[str | Answer, None]) -> None:
    async with aclosing(items):
        assert await anext(items) == "first "


async def give_up(items: AsyncGenerator[str | Answer, None]) -> None:
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in items:
            started.set()

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [close_early, give_up])
async def test_leaving_a_stream_early_closes_its_connection(
    leave: Callable[[AsyncGenerator[str | Answer, None]], Awaitable[None]],
) -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        while True:
            await connection.chunks(text("first "))
            await asyncio.sleep(0.001)

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        await leave(calls.client.stream(FIRST))
        await kapa.gone.wait()
        kapa.reply = answer_everything
        assert await calls.client.ask(FIRST) == ANSWER
    assert calls.observed == [("chat", "ok")]


# --- streams that break ---

Breaking = Callable[[Connection], Awaitable[None]]


async def end_too_soon(connection: Connection) -> None:
    await connection.send(b"0\r\n\r\n")


async def hang_up(connection: Connection) -> None:
    connection.writer.close()


async def reset(connection: Connection) -> None:
    connection.reset()


async def say_error(connection: Connection) -> None:
    await connection.chunks(record("error", {"reason": f"no key {KEY}"}, stream_end=True))
    await connection.send(b"0\r\n\r\n")


async def say_nonsense(connection: Connection) -> None:
    await connection.chunks(b"<html>" + DELIMITER + IDS)
    await asyncio.Event().wait()


async def break_http(connection: Connection) -> None:
    await connection.send(b"no chunk size\r\n")


async def stall(connection: Connection) -> None:
    await asyncio.Event().wait()


async def send_too_much(connection: Connection) -> None:
    noise = record("from_the_future", {"x": "x" * 1_000_000})
    await connection.chunks(*[noise] * 12)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (end_too_soon, "truncated"),
        (hang_up, "connection"),
        (reset, "connection"),
        (say_error, r"no key \[redacted\]"),
        (say_nonsense, "garbled"),
        (break_http, "in time"),
        (stall, "in time"),
        (send_too_much, "too large"),
    ],
)
async def test_a_broken_stream_keeps_what_came(breaking: Breaking, reason: str) -> None:
    seen = asyncio.Event()

    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        await connection.chunks(text("To get "))
        await seen.wait()
        await breaking(connection)

    timeout = SILENCE if breaking in (stall, break_http) else PATIENCE
    async with raw_server(reply) as kapa, calling(kapa.url, read_timeout=timeout) as calls:
        items = calls.client.stream(FIRST)
        assert await anext(items) == "To get "
        seen.set()
        error = await failure_of(anext(items))
    assert isinstance(error, KapaUnavailable)
    assert re.search(reason, error.reason)
    assert error.partial == "To get "
    assert not error.is_rate_limit
    assert calls.observed == [("chat_stream", "unavailable")]


@pytest.mark.parametrize("breaking", [hang_up, reset, break_http, stall])
async def test_a_broken_reply_is_no_answer(breaking: Breaking) -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        await connection.chunks(WHOLE[:20])
        await breaking(connection)

    timeout = SILENCE if breaking in (stall, break_http) else PATIENCE
    async with raw_server(reply) as kapa, calling(kapa.url, answer_timeout=timeout) as calls:
        assert isinstance(await failure_of(calls.client.ask(FIRST)), KapaUnavailable)
    assert calls.observed == [("chat", "unavailable")]


async def test_a_reply_has_a_bound() -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        while True:
            await connection.chunks(b" " * 1_000_000)

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        error = await failure_of(calls.client.ask(FIRST))
        await kapa.gone.wait()
    assert isinstance(error, KapaUnavailable)
    assert "too large" in error.reason


# Without the time: the processes that share the tests have to give them the same names.
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("data", [b"garbage", gzip.compress(STREAM, mtime=0)[:40], b"\x1f\x8b" + b"\0" * 30])
async def test_broken_compression_is_a_broken_reply(data: bytes, is_stream: bool) -> None:
    reply = always("200 OK", data, Content_Encoding="gzip")
    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        error = await failure_of(all_of(calls.client) if is_stream else calls.client.ask(FIRST))
    assert isinstance(error, KapaUnavailable)
    assert kapa.requests[0].headers["accept-encoding"] == "identity"


async def test_compression_does_not_hide_size() -> None:
    reply = always("200 OK", gzip.compress(b" " * 50_000_000), Content_Encoding="gzip")
    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        error = await failure_of(calls.client.ask(FIRST))
    assert "too large" in error.reason


@pytest.mark.parametrize("seed", range(40))
async def test_any_bytes_at_all_are_an_answer_or_a_kapa_error(seed: int) -> None:
    random = Random(seed)
    start = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][seed % 3]
    tokens = [b"\r\n", b"HTTP/1.1 ", b"500 ", b"Content-Length: 5", b"\r\n\r\n", b"0", b"{", b"\xff", b"a" * 9000]
    data = start + b"".join(random.choice([*tokens, random.randbytes(4)]) for _ in range(random.randint(0, 12)))

    async def reply(_: Request, connection: Connection) -> None:
        await connection.send(data)
        connection.writer.close()

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert isinstance(await failure_of(all_of(calls.client)), KapaError)
        assert isinstance(await failure_of(calls.client.integrations()), KapaError)


# --- refusals ---


@pytest.mark.parametrize(
    ("status", "body", "kind", "outcome"),
    [
        ("400 Bad Request", b'{"query":["Required."]}', KapaRefused, "refused"),
        ("413 Too Large", b"<html>", KapaRefused, "refused"),
        ("401 Unauthorized", f'{{"detail":"bad key {KEY}"}}'.encode(), KapaMisconfigured, "misconfigured"),
        ("403 Forbidden", b"", KapaMisconfigured, "misconfigured"),
        ("404 Not Found", b'{"detail":"Not found."}', KapaMisconfigured, "misconfigured"),
        ("408 Request Timeout", b"", KapaUnavailable, "unavailable"),
        ("429 Too Many Requests", b'{"detail":"Slow down."}', KapaUnavailable, "rate_limited"),
        ("502 Bad Gateway", b"<html>Bad gateway</html>", KapaUnavailable, "unavailable"),
    ],
)
async def test_a_refusal(status: str, body: bytes, kind: type[KapaError], outcome: str) -> None:
    async with raw_server(always(status, body, Retry_After="7")) as kapa, calling(kapa.url) as calls:
        errors = [
            await failure_of(calls.client.integrations()),
            await failure_of(calls.client.ask(FIRST)),
            await failure_of(all_of(calls.client)),
        ]
    assert [type(error) for error in errors] == [kind] * 3
    assert [error.status for error in errors] == [int(status[:3])] * 3
    assert [error.retry_after for error in errors if isinstance(error, KapaUnavailable)] in ([], [7.0] * 3)
    assert calls.observed == [(endpoint, outcome) for endpoint in ("integrations", "chat", "chat_stream")]


async def test_what_is_not_found_depends_on_where() -> None:
    async with raw_server(always("404 Not Found")) as kapa, calling(kapa.url) as calls:
        assert isinstance(await failure_of(calls.client.ask(NEXT)), KapaThreadUnknown)
        assert isinstance(await failure_of(all_of(calls.client, NEXT)), KapaThreadUnknown)
        assert isinstance(await failure_of(calls.client.upsert_feedback("q", "U", VOTE)), KapaRefused)
    outcomes = [("chat", "thread_unknown"), ("chat_stream", "thread_unknown"), ("feedback", "refused")]
    assert calls.observed == outcomes


async def test_the_status_counts_when_the_body_of_an_error_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kapa_client, "ERROR_BODY_SECONDS", SILENCE)

    async def reply(request: Request, connection: Connection) -> None:
        await connection.head("401 Unauthorized", Content_Length="1000")
        await connection.send(b'{"det')
        if "integrations" in request.path:
            connection.writer.close()
        else:
            await asyncio.Event().wait()

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert isinstance(await failure_of(calls.client.integrations()), KapaMisconfigured)
        assert isinstance(await failure_of(calls.client.ask(FIRST)), KapaMisconfigured)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_the_key_does_not_follow_a_redirect(status: str) -> None:
    async with raw_server(answer_everything) as elsewhere:
        reply = always(status, Location=f"{elsewhere.url}/query/v1/projects/p1/integrations/")
        async with raw_server(reply) as kapa, calling(kapa.url) as calls:
            for call in (calls.client.integrations(), calls.client.ask(FIRST), all_of(calls.client)):
                assert isinstance(await failure_of(call), KapaMisconfigured)
            feedback = calls.client.upsert_feedback("q1", "U", VOTE)
            assert isinstance(await failure_of(feedback), KapaMisconfigured)
        assert len(kapa.requests) == 4
    assert (elsewhere.connections, elsewhere.requests) == (0, [])


async def test_cookies_are_not_kept() -> None:
    # Called by a name, because cookies of a bare address are not kept anyway.
    async with (
        raw_server(always("200 OK", b"[]", Set_Cookie="a=b; Path=/")) as kapa,
        calling(kapa.url.replace("127.0.0.1", "localhost")) as calls,
    ):
        await calls.client.integrations()
        await calls.client.integrations()
    assert "cookie" not in kapa.requests[1].headers


# --- no connection, no time ---


async def test_a_refused_connection() -> None:
    async with raw_server(answer_everything) as kapa:
        pass
    async with calling(kapa.url) as calls:
        for call in (calls.client.integrations(), calls.client.ask(FIRST), all_of(calls.client)):
            error = await failure_of(call)
            assert isinstance(error, KapaUnavailable)
            assert error.status is None
    assert [outcome for _, outcome in calls.observed] == ["unavailable"] * 3


@pytest.mark.parametrize("limit", ["read_timeout", "total_timeout"])
async def test_a_server_that_never_answers(limit: str) -> None:
    async with raw_server(wait_forever) as kapa, calling(kapa.url, **{limit: SILENCE}) as calls:
        for call in (calls.client.integrations(), all_of(calls.client), calls.client.upsert_feedback("q", "U", VOTE)):
            error = await failure_of(call)
            assert isinstance(error, KapaUnavailable)
            assert "in time" in error.reason
    assert calls.observed == [(name, "unavailable") for name in ("integrations", "chat_stream", "feedback")]


async def test_a_whole_answer_may_take_longer_than_a_silence_in_a_stream() -> None:
    streams_gave_up = asyncio.Event()

    async def reply(request: Request, connection: Connection) -> None:
        if request.path.endswith("/stream/"):
            await asyncio.Event().wait()
        await streams_gave_up.wait()
        await connection.whole(WHOLE)

    async with raw_server(reply) as kapa, calling(kapa.url, read_timeout=SILENCE) as calls:
        asked = asyncio.create_task(calls.client.ask(FIRST))
        assert isinstance(await failure_of(all_of(calls.client)), KapaUnavailable)
        assert isinstance(await failure_of(all_of(calls.client)), KapaUnavailable)
        streams_gave_up.set()
        assert await asked == ANSWER


async def test_a_slow_drip_has_an_end() -> None:
    async def reply(_: Request, connection: Connection) -> None:
        await connection.head(Transfer_Encoding="chunked")
        while True:
            await connection.chunks(b" ")
            await asyncio.sleep(0.01)

    async with raw_server(reply) as kapa, calling(kapa.url, total_timeout=SILENCE) as calls:
        assert isinstance(await failure_of(all_of(calls.client)), KapaUnavailable)
        assert isinstance(await failure_of(calls.client.ask(FIRST)), KapaUnavailable)


async def test_being_cancelled_is_no_failure_of_kapa() -> None:
    asked = asyncio.Event()

    async def reply(_: Request, connection: Connection) -> None:
        asked.set()
        await connection.reader.read()

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        task = asyncio.create_task(calls.client.ask(FIRST))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await kapa.gone.wait()
    assert calls.observed == []


async def test_a_request_is_never_sent_twice() -> None:
    async def reply(_: Request, connection: Connection) -> None:
        connection.reset()

    async with raw_server(reply) as kapa, calling(kapa.url) as calls:
        assert isinstance(await failure_of(calls.client.ask(FIRST)), KapaUnavailable)
    assert len(kapa.requests) == 1


# --- wrong settings ---


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::"])
async def test_an_address_that_is_none(url: str) -> None:
    async with calling(url) as calls:
        assert isinstance(await failure_of(calls.client.integrations()), KapaMisconfigured)
        assert isinstance(await failure_of(all_of(calls.client)), KapaMisconfigured)


@pytest.mark.parametrize("key", ["secret\r\nX-Injected: 1", "secret\n", "secret\0"])
async def test_a_key_that_no_header_can_carry(key: str) -> None:
    async with (
        raw_server(answer_everything) as kapa,
        KapaClient(api_url=kapa.url, api_key=key, project_id="p1", integration_id="i1") as client,
    ):
        error = await failure_of(client.integrations())
    assert isinstance(error, KapaMisconfigured)
    assert "secret" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"
    assert kapa.requests == []


async def test_the_client_does_not_show_its_key() -> None:
    async with calling("http://127.0.0.1:1") as calls:
        assert KEY not in f"{calls.client!r} {calls.client!s}"


async def test_a_client_that_was_not_entered_says_so() -> None:
    client = KapaClient(api_url="http://127.0.0.1:1", api_key=KEY, project_id="p1", integration_id="i1")
    with pytest.raises(RuntimeError, match="async with"):
        await client.integrations()
