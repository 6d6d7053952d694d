"""Traces: the whole bridge as real processes, and a collector that takes OTLP over HTTP as any other does."""

import asyncio
import contextvars
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge import __version__, app, traces
from bridge.app import StartError
from bridge.dead_letters import DeadLetters
from bridge.inbox import Item, Kind, Ticket
from bridge.playground.kapa import Pace
from bridge.playground.slack_cast import PEOPLE
from bridge.settings import SettingsError, load, trace_exporters
from bridge.worker import MOST_FAULTS
from tests.rig import ADA, GENERAL, HELP, Rig, hurry, markdown, settled
from tests.waiting import eventually

SERVER, CLIENT, CONSUMER = 2, 3, 5
ERROR = 2
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@dataclass(frozen=True)
class Span:
    """A span as a collector got it; `error` is its description if its status is an error."""

    resource: dict[str, Any]
    trace: bytes
    id: bytes
    parent: bytes
    name: str
    kind: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    error: str | None
    seconds: float


@dataclass
class Collector:
    """A collector that answers with `status`, and keeps what it took with a 200."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        body = await request.read()
        if self.status == 200:
            self.bodies.append(body)
        return web.Response(status=self.status)

    @property
    def spans(self) -> list[Span]:
        """What was exported, in the order in which it began."""
        found = [span for body in self.bodies for span in read(body)]
        return [span for _, span in sorted(found, key=lambda pair: pair[0])]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def over(self, name: str, count: int = 1) -> bool:
        return len(self.named(name)) >= count

    def was_tried(self, times: int) -> bool:
        return len(self.headers) >= times

    def environment(self) -> dict[str, str]:
        return {ENDPOINT: self.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}


def read(body: bytes) -> Iterator[tuple[int, Span]]:
    """Read an OTLP request. Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for resource in request.resource_spans:
        of = fields(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield (
                    span.start_time_unix_nano,
                    Span(
                        of,
                        span.trace_id,
                        span.span_id,
                        span.parent_span_id,
                        span.name,
                        span.kind,
                        fields(span.attributes),
                        {event.name: fields(event.attributes) for event in span.events},
                        span.status.message if span.status.code == ERROR else None,
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    ),
                )


def fields(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = web.Application()
    server.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
def here(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """Give a collector of what a bridge in this process exports, which does not wait as for real people."""
    for name, value in collector.environment().items():
        monkeypatch.setenv(name, value)
    hurry(monkeypatch)
    return collector


# The whole way


async def test_a_question_is_one_trace_from_its_event_to_its_answer_across_processes(
    rig: Rig, collector: Collector, redis: Redis
) -> None:
    # Long enough for a status line, and slow enough for a draft: tasks of their own show them.
    rig.kapa.pace = Pace(0, 0.03)
    rig.kapa.hold()
    async with (
        rig.process("--role", "ingress", **collector.environment()),
        rig.process("--role", "worker", **collector.environment()),
    ):
        await rig.slack.wait_for(lambda: rig.slack.sockets > 0, 20)
        ts = await rig.slack.say(ADA, GENERAL, "How do I install zebras?")
        await eventually(lambda: bool(rig.called("assistant.threads.setStatus")))
        rig.kapa.release()
        answer = (await rig.answer(GENERAL, ts))[-1]
        await settled(rig, redis)
        await rig.slack.react(ADA, GENERAL, answer["ts"], "+1")
        await eventually(lambda: collector.over("count") and collector.over("slack chat.postEphemeral"))

    [question], [attempt] = collector.named("question"), collector.named("answer")
    spans = [span for span in collector.spans if span.trace == question.trace]
    assert (question.kind, question.parent, question.resource["bridge.role"]) == (SERVER, b"", "ingress")
    assert (attempt.kind, attempt.parent, attempt.resource["bridge.role"]) == (CONSUMER, question.id, "worker")
    where = {"slack.team": "T0PLAY", "slack.channel": GENERAL, "slack.thread": ts, "slack.question": ts}
    assert question.attributes == where
    assert where.items() <= attempt.attributes.items()
    assert attempt.attributes["bridge.result"] == "answered"
    assert (attempt.attributes["bridge.failures"], attempt.attributes["bridge.deaths"]) == (0, 0)
    assert attempt.events["first_text"]["seconds"] > 0
    assert attempt.events["answer"]["result"] == "answered"
    assert all(span.error is None for span in spans)

    calls = [span for span in spans if span.kind == CLIENT]
    assert {span.parent for span in calls} == {attempt.id}
    assert {span.attributes["peer.service"] for span in calls} == {"kapa", "slack"}
    assert {"kapa chat_stream", "slack assistant.threads.setStatus"} <= {span.name for span in calls}
    shown = {"slack chat.startStream", "slack chat.postMessage"}
    assert shown & {span.name for span in calls}
    assert {span.name for span in spans} - {span.name for span in calls} == {"question", "answer"}

    [vote], [count] = collector.named("vote"), collector.named("count")
    assert vote.trace == count.trace != question.trace
    assert count.parent == vote.id
    assert count.attributes["bridge.result"] == "upvote"
    assert [span.parent for span in collector.named("kapa feedback")] == [count.id]
    # Nothing that people wrote, nor who they are, nor what opens a door.
    secrets = [rig.slack.bot_token, rig.slack.app_token, rig.kapa.api_key]
    people = [word for person in PEOPLE for word in (person.id, person.real_name)]
    for word in [rig.kapa.asked[0].query, "zebra", markdown(answer)[:20], *secrets, *people]:
        assert word.encode() not in b"".join(collector.bodies), word


async def test_a_retry_is_one_more_attempt_in_the_same_trace(rig: Rig, here: Collector) -> None:
    rig.kapa.fault("500")
    async with rig.bridge(bridge_streaming="off"):
        await rig.ask(ADA, GENERAL, "How do I install it?")
        await eventually(lambda: here.over("answer", 2))
    first, second = here.named("answer")
    [question] = here.named("question")
    assert {first.trace, second.trace} == {question.trace}
    assert {first.parent, second.parent} == {question.id}
    assert (first.error, first.attributes["bridge.result"]) == ("again", "again")
    assert first.attributes["bridge.reason"] == "kapa unavailable"
    assert (second.error, second.attributes["bridge.failures"]) == (None, 1)
    failed, asked = here.named("kapa chat")
    assert (failed.parent, failed.error, failed.attributes["error.type"]) == (first.id, "unavailable", "unavailable")
    assert (asked.parent, asked.error) == (second.id, None)


async def test_a_dead_letter_is_an_error_and_goes_on_in_its_trace(rig: Rig, here: Collector, redis: Redis) -> None:
    async with rig.bridge():
        key, rig.kapa.api_key = rig.kapa.api_key, "another"
        await rig.ask(ADA, GENERAL, "How do I install it?")
        await settled(rig, redis)
        rig.kapa.api_key = key
        letters = DeadLetters(redis)
        await letters.retry([letter.id for letter in await letters.read()])
        await eventually(lambda: here.over("answer", 2))
    dead, answered = here.named("answer")
    assert (dead.error, dead.attributes["bridge.result"]) == ("dead", "dead")
    assert (answered.error, answered.attributes["bridge.result"]) == (None, "answered")
    assert dead.trace == answered.trace


async def test_an_edit_goes_on_in_the_trace_of_its_question(rig: Rig, here: Collector, redis: Redis) -> None:
    rig.kapa.hold()
    async with rig.bridge():
        ts = await rig.slack.say(ADA, GENERAL, "How do I install it?")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        await rig.slack.edit(ADA, GENERAL, ts, "How do I rotate keys?")
        await eventually(lambda: here.over("revision") and here.over("answer"))
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await eventually(lambda: here.over("answer", 2))
    [question], [revision] = here.named("question"), here.named("revision")
    old, new = here.named("answer")
    assert {span.trace for span in here.spans} == {question.trace}
    assert {revision.parent, old.parent, new.parent} == {question.id}
    assert (old.error, old.attributes["bridge.result"]) == (None, "revised")
    assert "slack.revision" not in old.attributes
    assert revision.attributes["slack.revision"] == new.attributes["slack.revision"] > ts
    assert new.attributes["bridge.result"] == "answered"


async def test_waits_for_a_turn_are_seen(rig: Rig, here: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "KAPA_WINDOW_SECONDS", 1.0)
    async with rig.bridge(kapa_requests_per_minute=1):
        await asyncio.gather(rig.ask(ADA, GENERAL, "How do I install it?"), rig.ask(ADA, HELP, "How do I install it?"))
        await eventually(lambda: here.over("answer", 2))
    [wait] = here.named("wait kapa")
    [waited] = [span for span in here.named("answer") if span.id == wait.parent]
    assert 0 < wait.seconds < waited.seconds


async def test_what_is_no_question_has_no_trace(rig: Rig, here: Collector, redis: Redis) -> None:
    async with rig.bridge(bridge_answer="mention"):
        await rig.slack.say(ADA, GENERAL, "Lunch?")
        await settled(rig, redis)
    assert here.spans == []


async def test_a_fault_of_ours_names_its_kind_and_not_what_it_quotes(
    rig: Rig, here: Collector, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_over(text: str) -> str:
        raise RuntimeError(f"zebra {text}")

    monkeypatch.setattr("bridge.answer.harmless", fall_over)
    async with rig.bridge():
        await rig.slack.say(ADA, GENERAL, "How do I install it?")
        await settled(rig, redis)
        await eventually(lambda: here.over("answer", MOST_FAULTS))
    *_, before, last = here.named("answer")
    assert (before.error, before.attributes["error.type"]) == ("fault", "RuntimeError")
    assert (last.error, last.attributes["error.type"]) == ("dead", "RuntimeError")
    assert b"zebra" not in b"".join(here.bodies)


# What the standard variables say


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({}, ()),
        ({ENDPOINT: ""}, ()),
        ({"OTEL_SERVICE_NAME": "bridge"}, ()),
        ({ENDPOINT: "http://collector:4318"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ("console", "otlp")),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "True"}, ()),
        ({ENDPOINT: "nonsense", "OTEL_SDK_DISABLED": "true"}, ()),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ()),
        (
            {
                ENDPOINT: "http://collector:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, Authorization=Basic YWJjOmRlZg==,",
            },
            ("otlp",),
        ),
    ],
)
def test_traces_are_wanted_by_the_standard_variables(
    variables: dict[str, str], exporters: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trace_exporters() == exporters


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (
            {ENDPOINT: "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not built in; it should be http/protobuf, which collectors take on "
            "port 4318",
        ),
        (
            {ENDPOINT: "collector:4318"},
            f"{ENDPOINT}: it should be an http or https address, such as http://localhost:4318",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp,zipkin"},
            "OTEL_TRACES_EXPORTER: 'zipkin' is not built in; it should be otlp, console or none",
        ),
        (
            {ENDPOINT: "http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS": "sesame"},
            "OTEL_EXPORTER_OTLP_HEADERS: it should be name=value, more of them separated by commas, and values "
            "URL-encoded",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        trace_exporters()
    assert refused.value.problems == (problem,)
    # Who runs the bridge hears of it with all else; who looks at dead letters does not.
    with pytest.raises(SettingsError, match="OTEL_"):
        load(["kapa_api_url"])
    load()


async def test_a_bridge_that_is_to_speak_grpc_does_not_start(rig: Rig) -> None:
    asked = {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    async with rig.process(**asked) as process, asyncio.timeout(20):
        assert await process.wait() == 2


def test_the_file_counts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # That it is set here is undone at the end.
    for name in (ENDPOINT, "OTEL_SERVICE_NAME"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{ENDPOINT}=http://collector:4318\nOTEL_SERVICE_NAME=ours\n")
    assert trace_exporters() == ("otlp",)
    assert os.environ["OTEL_SERVICE_NAME"] == "ours"


async def test_what_the_sdk_cannot_use_keeps_the_bridge_from_starting(
    rig: Rig, here: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with pytest.raises(StartError, match="OTEL_…: traces cannot be set up: max_queue_size must be"):
        async with rig.bridge():
            raise AssertionError("it started")


async def test_the_operator_names_the_service_and_sends_headers(
    rig: Rig, here: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=ours,service.version=7,deployment.environment=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=sesame")
    async with rig.bridge():
        await rig.ask(ADA, GENERAL, "How do I install it?")
        await eventually(lambda: here.over("answer"))
    resource = here.spans[0].resource
    assert (resource["service.name"], resource["service.version"]) == ("ours", "7")
    assert (resource["deployment.environment"], resource["bridge.role"]) == ("test", "all")
    assert here.headers[0]["api-key"] == "sesame"


async def test_without_a_name_the_service_is_the_bridge(rig: Rig, here: Collector) -> None:
    async with rig.bridge():
        await rig.ask(ADA, GENERAL, "How do I install it?")
    # What is left is exported as the bridge stops.
    [attempt] = here.named("answer")
    assert (attempt.resource["service.name"], attempt.resource["service.version"]) == (traces.SERVICE, __version__)


def test_all_processes_sample_the_same_questions() -> None:
    def a_process() -> tuple[traces.Traces, InMemorySpanExporter]:
        exporter, ids = InMemorySpanExporter(), traces.Ids()
        provider = TracerProvider(ParentBased(TraceIdRatioBased(0.5)), id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return traces.Traces(provider, ids), exporter

    (ingress, taken_in), (worker, dealt_with) = a_process(), a_process()
    for number in range(100):
        item = Item(f"T:C:{number}", "T:C:1", f"{number}", "")
        ingress.began(Kind.QUESTION, item, 1)
        contextvars.Context().run(attempt_and_end, worker, item)
    roots = {span.context.trace_id: span.context.span_id for span in taken_in.get_finished_spans() if span.context}
    attempts = {span.context.trace_id: span.parent for span in dealt_with.get_finished_spans() if span.context}
    assert 20 < len(roots) < 80
    assert roots == {trace: parent.span_id for trace, parent in attempts.items() if parent}


def attempt_and_end(worker: traces.Traces, item: Item) -> None:
    worker.attempt(Kind.QUESTION, Ticket("1-0", item))
    worker.settled("answered")


# Off, and away


def test_off_costs_nothing() -> None:
    # A process of its own: in this one it was imported long ago.
    program = """
import asyncio, sys
from bridge import app, cli
from bridge.settings import Role
async def main():
    async with app._parts(Role.ALL) as parts:
        assert parts == app.Parts()
asyncio.run(main())
unwanted = ("opentelemetry", "requests", "rich")
loaded = [name for name, module in sys.modules.items() if module and name.startswith(unwanted)]
assert loaded == [], loaded
"""
    done = subprocess.run(  # noqa: S603 - a program of this test's own
        [sys.executable, "-c", program], env={}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


async def test_a_collector_that_is_away_disturbs_nothing_and_is_told_of_once(
    rig: Rig, here: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too short for the exporter to try by itself again, which it does after 0.8 s or more.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.7")
    here.status = 503
    with capture_logs() as logs:
        async with rig.bridge():
            for tries in (1, 2):
                await rig.ask(ADA, GENERAL, "How do I install it?")
                await eventually(partial(here.was_tried, tries))
            here.status = 200
            await rig.ask(ADA, GENERAL, "How do I install it?")
            await eventually(lambda: here.over("answer"))
    told = [line for line in logs if line["event"].startswith("traces_") and line["event"] != "traces_wanted"]
    assert [line["event"] for line in told] == ["traces_not_exported", "traces_exported_again"]
    assert told[0]["reason"]


async def test_a_collector_that_never_answers_does_not_hold_up_the_end(rig: Rig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = {ENDPOINT: f"http://127.0.0.1:{silent.getsockname()[1]}", "OTEL_BSP_SCHEDULE_DELAY": "20"}
        # With a Redis of its own, which is started by a process that has more than one thread then.
        async with rig.process(redis_url="", bridge_data_dir=tmp_path / "own", **asked) as process:
            await rig.slack.wait_for(lambda: rig.slack.sockets > 0, 20)
            await rig.ask(ADA, GENERAL, "How do I install it?")
            started = monotonic()
            process.terminate()
            assert await process.wait() == 0
    # By itself the exporter would try for ten seconds.
    assert monotonic() - started < traces.FLUSH_SECONDS + 4
