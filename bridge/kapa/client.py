"""One HTTP session with Kapa: sends what `kapa/wire` builds and hands on what it reads.

What bytes and statuses mean lives in `kapa/wire`. Nothing is repeated, paced or remembered here: that is for
the journeys to decide. Source: https://docs.kapa.ai/api
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from time import monotonic, time
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from bridge import __version__
from bridge.kapa import wire
from bridge.kapa.wire import (
    AnswerBuilder,
    Integration,
    KapaError,
    KapaMisconfigured,
    KapaRefused,
    KapaThreadUnknown,
    KapaUnavailable,
    StreamDecoder,
    Text,
)
from bridge.models import Answer, Query, Vote

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_ERROR_BYTES: Final = 64 * 1024
ERROR_BODY_SECONDS: Final = 5.0
# The answer is held back for so long at most, to spare the next one a new connection.
LINGER_SECONDS: Final = 0.05

# HttpProcessingError: a body that breaks HTTP's own rules is not always wrapped into a ClientError.
_NETWORK: Final = (aiohttp.ClientError, HttpProcessingError, OSError)

T = TypeVar("T")
Observe = Callable[[str, str, float], None]


def _observe_nothing(endpoint: str, outcome: str, seconds: float) -> None:
    """Do nothing with a finished call."""


class KapaClient:
    """Asks Kapa and tells it what people thought; used as `async with KapaClient(...) as kapa`.

    Every method raises KapaError and nothing of the HTTP library. Timeouts are seconds: `connect_timeout` to
    get a connection, `read_timeout` of silence on a connection, `answer_timeout` of silence before a whole
    answer, `total_timeout` for one call from end to end. `observe(endpoint, outcome, seconds)` is called once
    per finished call: endpoint is `integrations`, `chat`, `chat_stream` or `feedback`; outcome is `ok`,
    `rate_limited`, `unavailable`, `refused`, `misconfigured` or `thread_unknown`. A call that its caller gave
    up is not finished.
    """

    def __init__(
        self,
        *,
        api_url: str,
        api_key: str,
        project_id: str,
        integration_id: str,
        connect_timeout: float = 10.0,
        read_timeout: float = 90.0,
        answer_timeout: float = 120.0,
        total_timeout: float = 600.0,
        observe: Observe = _observe_nothing,
    ) -> None:
        self._base = api_url.rstrip("/")
        self._key = api_key
        self._project_id = project_id
        self._integration_id = integration_id
        self._limits = aiohttp.ClientTimeout(total=total_timeout, connect=connect_timeout, sock_read=read_timeout)
        self._answer_limits = aiohttp.ClientTimeout(
            total=total_timeout, connect=connect_timeout, sock_read=answer_timeout
        )
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"KapaClient(project_id={self._project_id!r}, integration_id={self._integration_id!r})"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={
                "X-API-KEY": self._key,
                "Accept": "application/json",
                # A compressed stream is held back until a block of it is full.
                "Accept-Encoding": "identity",
                "User-Agent": f"slack-kapa-bridge/{__version__}",
            },
            timeout=self._limits,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # How many calls run at once is the journeys' business.
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def integrations(self) -> list[Integration]:
        """List the project's integrations: a cheap check of address, key, project and integration id."""
        return await self._finished("integrations", self._integrations())

    async def ask(self, query: Query) -> Answer:
        """Ask and wait for the whole answer, often more than 15 s."""
        return await self._finished("chat", self._ask(query))

    async def upsert_feedback(
        self, question_answer_id: str, person: str, vote: Vote, *, clear_comment: bool = False
    ) -> None:
        """Set one person's vote on one answer, over any earlier one of theirs; safe to repeat.

        `clear_comment` overwrites an earlier comment even when this vote has none.
        """
        body = wire.feedback_body(question_answer_id, person, vote, clear=clear_comment)
        await self._finished("feedback", self._feedback(body))

    async def stream(self, query: Query) -> AsyncGenerator[str | Answer, None]:
        """Ask and give the answer's text in deltas as they arrive, then, last, the whole Answer.

        Raises KapaUnavailable with the text so far in `partial` when the stream breaks. Closing the generator
        early closes the connection.
        """
        started = monotonic()
        builder = AnswerBuilder(secret=self._key)
        failure: KapaError
        try:
            async with aclosing(self._deltas(query, builder)) as deltas:
                async for delta in deltas:
                    yield delta
            answer = builder.finish()
        except KapaError as error:
            failure = error
        except _NETWORK as error:
            failure = self._lost(error)
        else:
            self._observe("chat_stream", "ok", monotonic() - started)
            yield answer
            return
        if isinstance(failure, KapaUnavailable):
            failure.partial = builder.text
        self._observe("chat_stream", _outcome(failure), monotonic() - started)
        raise failure

    async def _deltas(self, query: Query, builder: AnswerBuilder) -> AsyncGenerator[str, None]:
        """Fill the builder from a streamed answer, giving its text on the way."""
        path = wire.chat_path(self._project_id, query.thread_id, stream=True)
        body = wire.chat_body(query, self._integration_id)
        async with self._request("POST", path, body) as response:
            await self._succeed(response, on_thread=query.thread_id is not None)
            decoder, size, is_open = StreamDecoder(), 0, True
            while is_open and not (decoder.is_over or (decoder.is_said_to_end and builder.is_complete)):
                data = await _next(response.content, self._limits)
                is_open = data != b""
                size += len(data)
                if size > MAX_BODY_BYTES:
                    raise KapaUnavailable("the answer is too large")
                for piece in decoder.feed(data) if is_open else decoder.end():
                    builder.add(piece)
                    if isinstance(piece, Text) and piece.text:
                        yield piece.text
            if is_open and builder.is_complete:
                await _linger(response.content)

    async def _finished(self, endpoint: str, call: Awaitable[T]) -> T:
        started = monotonic()
        failure: KapaError
        try:
            result = await call
        except KapaError as error:
            failure = error
        except _NETWORK as error:
            failure = self._lost(error)
        else:
            self._observe(endpoint, "ok", monotonic() - started)
            return result
        self._observe(endpoint, _outcome(failure), monotonic() - started)
        # Raised out here, without a context: the HTTP library's errors hold the request's headers.
        raise failure

    async def _integrations(self) -> list[Integration]:
        async with self._request("GET", wire.integrations_path(self._project_id)) as response:
            await self._succeed(response)
            return wire.parse_integrations(await _whole(response.content, self._limits))

    async def _ask(self, query: Query) -> Answer:
        path = wire.chat_path(self._project_id, query.thread_id, stream=False)
        body = wire.chat_body(query, self._integration_id)
        async with self._request("POST", path, body, limits=self._answer_limits) as response:
            await self._succeed(response, on_thread=query.thread_id is not None)
            return wire.parse_answer(await _whole(response.content, self._answer_limits))

    async def _feedback(self, body: Mapping[str, Any]) -> None:
        async with self._request("POST", wire.feedback_path(), body) as response:
            await self._succeed(response, on_feedback=True)
            await _linger(response.content)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send one request and give the response's head."""
        if self._session is None:
            raise RuntimeError("KapaClient is used outside of its `async with`")
        response = None
        with suppress(ValueError, aiohttp.NonHttpUrlClientError):
            # Encoded: the URL library would otherwise undo some of wire's quoting.
            url = URL(self._base + path, encoded=True)
            response = await self._session.request(
                method, url, json=body, allow_redirects=False, timeout=limits or self._limits
            )
        if response is None:
            # What exactly is wrong stays unsaid: it may be a part of the key.
            raise KapaMisconfigured("no request can be sent: check Kapa's address and key")
        async with response:
            yield response

    async def _succeed(
        self, response: aiohttp.ClientResponse, *, on_thread: bool = False, on_feedback: bool = False
    ) -> None:
        """Raise the error that a response without success stands for."""
        if 200 <= response.status < 300:
            return
        raise wire.error_from(
            response.status,
            response.headers,
            await _error_body(response.content),
            on_thread=on_thread,
            on_feedback=on_feedback,
            now=time(),
            secret=self._key,
        )

    def _lost(self, error: Exception) -> KapaUnavailable:
        kind = type(error).__name__
        if isinstance(error, TimeoutError):
            return KapaUnavailable(f"Kapa did not answer in time: {kind}")
        return KapaUnavailable(wire.redacted(f"the connection to Kapa failed: {kind}: {error}", self._key))


async def _next(content: aiohttp.StreamReader, limits: aiohttp.ClientTimeout) -> bytes:
    """Give what has come of a body, b"" at its end."""
    # The library's own timeout for this is dropped when the body breaks HTTP's rules, and nothing wakes the reader.
    async with asyncio.timeout(limits.sock_read):
        return await content.readany()


async def _whole(content: aiohttp.StreamReader, limits: aiohttp.ClientTimeout) -> bytes:
    body = bytearray()
    while data := await _next(content, limits):
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise KapaUnavailable("the reply is too large")
    return bytes(body)


async def _error_body(content: aiohttp.StreamReader) -> bytes:
    """Read the start of an error's body, as far as it comes: the status alone says who must act."""
    body = bytearray()
    with suppress(*_NETWORK):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BYTES and (data := await content.readany()):
                body += data
    return bytes(body)


async def _linger(content: aiohttp.StreamReader) -> None:
    """Wait a moment for the end of a body that is not needed: only then can its connection be used again."""
    with suppress(*_NETWORK):
        async with asyncio.timeout(LINGER_SECONDS):
            while await content.readany():
                continue


def _outcome(error: KapaError) -> str:
    match error:
        case KapaUnavailable(is_rate_limit=True):
            return "rate_limited"
        case KapaMisconfigured():
            return "misconfigured"
        case KapaThreadUnknown():
            return "thread_unknown"
        case KapaRefused():
            return "refused"
        case _:
            return "unavailable"
