"""OpenTelemetry traces: one for each question and each vote, from its event to its end, across all processes.

Nothing is carried from process to process: the ids of a trace and of its first span are made from the item's own id,
which every process knows, and so is the decision whether it is sampled. Spans tell where and how long, in the words of
the log, and never what people wrote or who they are. Whether traces are wanted is said in `settings`; only then is this
module imported, since OpenTelemetry is a tenth of a start. Source: https://opentelemetry.io/docs/specs/otel/trace/api/
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from threading import Thread
from time import time_ns
from typing import Any, Final

import structlog
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from bridge import __version__
from bridge.inbox import Inbox, Item, Kind, LeaseLostError, Put, RevisedError, Ticket
from bridge.metrics import Metrics
from bridge.work import Again, Journey, Lease, Outcome

SERVICE: Final = "slack-kapa-bridge"
# What is not exported by then is dropped: a process that is told to stop is waited for by somebody.
FLUSH_SECONDS: Final = 3.0
ATTEMPTS: Final = {Kind.QUESTION: "answer", Kind.VOTE: "count"}
FAILURES: Final = frozenset({"away", "dead", "lost"})
# The logger that is told of each try that failed.
EXPORTER_LOG: Final = OTLPSpanExporter.__module__

log = structlog.get_logger()


@asynccontextmanager
async def tracing(exporters: Collection[str], role: str) -> AsyncIterator["Traces"]:
    """Give the means to trace until the end of the block; `exporters` are `otlp` and `console`, one or both.

    The rest is for the SDK to read from the environment; raises ValueError, RuntimeError and ImportError where it
    cannot.
    """
    ids = Ids()
    # The end of the process is not held up: `_end` waits for so long as is bearable.
    provider = TracerProvider(resource=_resource(role), id_generator=ids, shutdown_on_exit=False)
    if "otlp" in exporters:
        provider.add_span_processor(BatchSpanProcessor(_Telling(OTLPSpanExporter())))
    if "console" in exporters:
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    log.info("traces_wanted", exporters=sorted(exporters))
    try:
        yield Traces(provider, ids)
    finally:
        await _end(provider)


def _resource(role: str) -> Resource:
    own = {"service.name": SERVICE, "service.version": __version__, "bridge.role": role}
    # What the operator says of the process, by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, goes first.
    said = {name: value for name, value in Resource.create().attributes.items() if not _is_unnamed(value)}
    return Resource({**own, **said})


def _is_unnamed(value: object) -> bool:
    # What the SDK calls a service that nobody named.
    return isinstance(value, str) and value.startswith("unknown_service")


async def _end(provider: TracerProvider) -> None:
    """Export what is left and stop, off the event loop; what takes longer than FLUSH_SECONDS is left to itself."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # the loop is closed when this comes too late
            loop.call_soon_threadsafe(ended.set)

    # No pool: the loop would wait for its threads. This one ends with the process.
    Thread(target=end, name="traces_end", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await ended.wait()
    except TimeoutError:
        log.warning("traces_left_behind", seconds=FLUSH_SECONDS)


class Traces:
    """Makes the parts of a bridge that tell traces: `inbox`, `journey` and `metrics`.

    All spans are started on the event loop's thread, under what is the current span of the running task.
    """

    def __init__(self, provider: TracerProvider, ids: "Ids") -> None:
        self._sampler = provider.sampler
        self._tracer = provider.get_tracer("bridge", __version__)
        self._ids = ids

    def inbox(self, *args: Any, **options: Any) -> Inbox:
        """Make an inbox, from what `Inbox` takes, whose items begin a trace as they are put."""
        return _TracedInbox(self, *args, **options)

    def journey(self, kind: Kind, journey: Journey) -> Journey:
        """Make a journey of which each run is an attempt in its item's trace."""
        return _TracedJourney(self, kind, journey)

    def metrics(self) -> Metrics:
        """Make metrics that hand on to the trace what they count."""
        return _TracedMetrics(self)

    # What began, in the ingress

    def began(self, kind: Kind, item: Item, started: int) -> None:
        """Tell of an item that is durably in the inbox; `started` is in nanoseconds since the epoch."""
        self._ids.given = _ids_of(kind, item)
        try:
            span = self._tracer.start_span(
                kind, context.Context(), SpanKind.SERVER, _attributes(kind, item), start_time=started
            )
        finally:
            self._ids.given = None
        span.end()

    def revised(self, kind: Kind, item: Item, started: int) -> None:
        """Tell of a revision that is durably in the inbox."""
        where = self._origin(kind, item)
        self._tracer.start_span("revision", where, SpanKind.SERVER, _attributes(kind, item), start_time=started).end()

    # What is done about it, in the worker

    def attempt(self, kind: Kind, ticket: Ticket) -> None:
        """Begin an attempt at a ticket, as the current span of the running task."""
        self.settled("revised")
        span = self._tracer.start_span(
            ATTEMPTS[kind],
            self._origin(kind, ticket.item),
            SpanKind.CONSUMER,
            {**_attributes(kind, ticket.item), "bridge.failures": ticket.failures, "bridge.deaths": ticket.deaths},
        )
        context.attach(trace.set_span_in_context(span, context.Context()))
        ids = span.get_span_context()
        if ids.trace_flags.sampled:
            structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(ids.trace_id))

    def noted(self, name: str, value: AttributeValue) -> None:
        """Note something about the current attempt, if there is one."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute(name, value)

    def happened(self, event: str, **fields: AttributeValue) -> None:
        """Note that something happened in the current attempt, if there is one."""
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(event, fields)

    def failed(self, why: str) -> None:
        """Note that the current attempt, if there is one, failed; `why` is a constant word."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_status(StatusCode.ERROR, why)

    def settled(self, result: str) -> None:
        """End the current attempt, if there is one, with a constant word."""
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("bridge.result", result)
            if result in FAILURES:
                span.set_status(StatusCode.ERROR, result)
            span.end()

    def called(self, peer: str, what: str, outcome: str, seconds: float) -> None:
        """Tell of a call that is over, made in the current attempt or beside it."""
        span = self._past(f"{peer} {what}", SpanKind.CLIENT, seconds, {"peer.service": peer, "bridge.outcome": outcome})
        if span is not None:
            if outcome not in {"ok", "cancelled"}:
                span.set_attribute("error.type", outcome)
                span.set_status(StatusCode.ERROR, outcome)
            span.end()

    def waited(self, budget: str, seconds: float) -> None:
        """Tell of a wait for a turn that is over."""
        span = self._past(f"wait {budget}", SpanKind.INTERNAL, seconds, {})
        if span is not None:
            span.end()

    def _past(
        self, name: str, kind: SpanKind, seconds: float, attributes: dict[str, AttributeValue]
    ) -> trace.Span | None:
        """Start a span that ends now, under the current one, which may be over; None: no trace is being sampled."""
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return None
        return self._tracer.start_span(name, None, kind, attributes, start_time=time_ns() - int(seconds * 1e9))

    def _origin(self, kind: Kind, item: Item) -> context.Context:
        """Give the context of an item's first span, whichever process has told it."""
        trace_id, span_id = _ids_of(kind, item)
        sampling = self._sampler.should_sample(None, trace_id, kind, SpanKind.SERVER)
        is_sampled = sampling.decision is Decision.RECORD_AND_SAMPLE
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if is_sampled else trace.TraceFlags.DEFAULT)
        origin = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(origin), context.Context())


def _ids_of(kind: Kind, item: Item) -> tuple[int, int]:
    """Give the ids of an item's trace and of its first span: the same in every process, and never nought."""
    digest = sha256(f"{kind}:{item.id}".encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def _attributes(kind: Kind, item: Item) -> dict[str, AttributeValue]:
    """Say where an item stands; the ids of votes hold who votes, and stay out."""
    team, channel, ts = [*item.line.split(":"), "", ""][:3]
    if kind is Kind.VOTE:
        return {"slack.team": team, "slack.channel": channel, "slack.message": ts}
    question = item.id.rpartition(":")[2]
    found: dict[str, AttributeValue] = {
        "slack.team": team,
        "slack.channel": channel,
        "slack.thread": ts,
        "slack.question": question,
    }
    return found if item.order == question else {**found, "slack.revision": item.order}


class Ids(RandomIdGenerator):
    """Random ids, except those that are given for the next span."""

    given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        """Give the id of a trace that begins."""
        return self.given[0] if self.given else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """Give the id of a span."""
        return self.given[1] if self.given else super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        """Say no: all processes come to the same one."""
        return False


class _TracedInbox(Inbox):
    def __init__(self, traces: Traces, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._traces = traces

    async def put(self, item: Item, **how: Any) -> Put:
        started = time_ns()
        put = await super().put(item, **how)
        if put is Put.ACCEPTED:
            self._traces.began(self.kind, item, started)
        return put

    async def revise(self, item: Item, **how: Any) -> Put:
        started = time_ns()
        put = await super().revise(item, **how)
        if put in {Put.ACCEPTED, Put.REVISED}:
            self._traces.revised(self.kind, item, started)
        return put


class _TracedJourney:
    def __init__(self, traces: Traces, kind: Kind, journey: Journey) -> None:
        self._traces = traces
        self._kind = kind
        self._journey = journey

    async def run(self, lease: Lease) -> Outcome:
        self._traces.attempt(self._kind, lease.ticket)
        try:
            outcome = await self._journey.run(lease)
        except asyncio.CancelledError:
            self._traces.settled("revised" if lease.is_interrupted else "cancelled")
            raise
        except RevisedError:
            self._traces.settled("revised")
            raise
        except LeaseLostError:
            raise
        except Exception as error:
            # Its text may quote what people wrote.
            self._traces.noted("error.type", type(error).__name__)
            self._traces.failed("fault")
            raise
        if isinstance(outcome, Again):
            self._traces.noted("bridge.reason", outcome.reason)
            if outcome.is_failure:
                self._traces.failed("again")
        return outcome

    async def surrender(self, lease: Lease, reason: str) -> Outcome:
        return await self._journey.surrender(lease, reason)


class _TracedMetrics(Metrics):
    def __init__(self, traces: Traces) -> None:
        super().__init__()
        self._traces = traces

    def work(self, kind: str, result: str) -> None:
        super().work(kind, result)
        self._traces.settled(result)

    def first_text(self, seconds: float) -> None:
        super().first_text(seconds)
        self._traces.happened("first_text", seconds=seconds)

    def answer(self, result: str, seconds: float) -> None:
        super().answer(result, seconds)
        self._traces.happened("answer", result=result, seconds=seconds)

    def added(self, seconds: float) -> None:
        super().added(seconds)
        self._traces.noted("bridge.added_seconds", seconds)

    def budget_wait(self, budget: str, seconds: float) -> None:
        super().budget_wait(budget, seconds)
        self._traces.waited(budget, seconds)

    def kapa_call(self, endpoint: str, outcome: str, seconds: float) -> None:
        super().kapa_call(endpoint, outcome, seconds)
        self._traces.called("kapa", endpoint, outcome, seconds)

    def slack_call(self, method: str, outcome: str, seconds: float) -> None:
        super().slack_call(method, outcome, seconds)
        self._traces.called("slack", method, outcome, seconds)


class _Telling(SpanExporter):
    """An exporter that tells once when spans cannot be delivered, and once when they can be again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        heard = _Hearing()
        exporter_log = logging.getLogger(EXPORTER_LOG)
        exporter_log.addFilter(heard)
        try:
            result = self._exporter.export(spans)
        finally:
            exporter_log.removeFilter(heard)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("traces_not_exported", reason=heard.first[:200])
        elif self._is_away and not is_away:
            log.info("traces_exported_again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Hearing(logging.Filter):
    """Keeps back what a logger is told, and remembers the first of it."""

    first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False
