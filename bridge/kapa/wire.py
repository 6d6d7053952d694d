"""Kapa's Query API as bytes: requests to paths and bodies, replies to values or to one of a few errors.

Pure: no I/O, no clock, no SDK. Sending and receiving live in `kapa/client`; whether to try again, and what to
tell whom, is decided by the journeys. Source: https://docs.kapa.ai/api
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import JSONDecoder, loads
from math import isfinite
from re import ASCII
from re import compile as compile_pattern
from typing import Any, Final
from urllib.parse import quote

from bridge.models import Answer, Query, Reason, Source, Vote

DELIMITER: Final = "\N{SYMBOL FOR RECORD SEPARATOR}".encode()
_LAST_OF_DELIMITER: Final = DELIMITER[-1]
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024
MAX_REASON_CHARS: Final = 200
FEEDBACK_PATH: Final = "/query/v1/feedback/upsert/"

# Cleaning looks at every character; what a reason can show stands at the beginning.
_MAX_RAW_CHARS: Final = 20 * MAX_REASON_CHARS

_NUMBER: Final = compile_pattern(r"[+-]?(\d+\.?\d*|\.\d+)", ASCII)
_BROKEN_JSON: Final = (ValueError, RecursionError)
_raw_decode: Final = JSONDecoder().raw_decode


# --- errors, by who must act ---


class KapaError(Exception):
    """A call to Kapa did not give what was asked for; the subclass says who must act.

    `status` is the HTTP status, None where there was no (or a successful) one. `reason` is one line of at
    most 200 printable characters, safe to log.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        self.reason: Final = _bounded(_one_line(reason[:_MAX_RAW_CHARS]))
        self.status: Final = status
        super().__init__(self.reason if status is None else f"{self.reason} (HTTP {status})")


class KapaUnavailable(KapaError):  # noqa: N818 - named for what is wrong; the tree's root says Error
    """Kapa could not answer now: try again later.

    `retry_after` is Kapa's own wish in seconds (unbounded outside data), `is_rate_limit` tells a 429 from the
    rest, and `partial` is the text of the answer that had been received when it broke off.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        is_rate_limit: bool = False,
        partial: str = "",
    ) -> None:
        super().__init__(reason, status=status)
        self.retry_after: Final = retry_after
        self.is_rate_limit: Final = is_rate_limit
        self.partial = partial


class KapaRefused(KapaError):  # noqa: N818 - named for what is wrong; the tree's root says Error
    """Kapa will never accept this request: tell the person."""


class KapaMisconfigured(KapaError):  # noqa: N818 - named for what is wrong; the tree's root says Error
    """Key, project or address are wrong: tell the operator."""


class KapaThreadUnknown(KapaError):  # noqa: N818 - named for what is wrong; the tree's root says Error
    """Kapa does not know the thread (any more): start a new one."""


# --- requests ---


def integrations_path(project_id: str) -> str:
    """Give the path that lists a project's integrations; raises KapaMisconfigured for an impossible id."""
    return f"/query/v1/projects/{_project(project_id)}/integrations/"


def chat_path(project_id: str, thread_id: str | None, *, stream: bool) -> str:
    """Give the path for a thread's first question (`thread_id` None) or its next one.

    Raises KapaMisconfigured for an impossible project id, KapaThreadUnknown for an impossible thread id.
    """
    if thread_id is None:
        start = f"/query/v1/projects/{_project(project_id)}"
    else:
        segment = _segment(thread_id)
        if segment is None:
            raise KapaThreadUnknown("no thread can have this id")
        start = f"/query/v1/threads/{segment}"
    return f"{start}/chat/stream/" if stream else f"{start}/chat/"


def feedback_path() -> str:
    """Give the path for feedback on any answer."""
    return FEEDBACK_PATH


def chat_body(query: Query, integration_id: str) -> dict[str, Any]:
    """Give the JSON body of a chat request, the same for all four chat endpoints."""
    body: dict[str, Any] = {"query": query.text, "integration_id": integration_id}
    if query.origin_url:
        body["metadata"] = {"origin_url": query.origin_url}
    if query.person:
        body["user"] = {"unique_client_id": query.person}
    return body


def feedback_body(question_answer_id: str, person: str, vote: Vote, *, clear: bool = False) -> dict[str, Any]:
    """Give the JSON body of a feedback upsert: one person's vote on one answer.

    The comment goes along when the vote has reasons or words, or when `clear` asks to overwrite an earlier
    one; it is always the whole object.
    """
    body: dict[str, Any] = {
        "question_answer": question_answer_id,
        "reaction": vote.reaction.value,
        "user_identifier": person,
    }
    if clear or vote.reasons or vote.words:
        body["comment"] = {"issue": vote.words, **{reason.value: reason in vote.reasons for reason in Reason}}
    return body


def _project(project_id: str) -> str:
    segment = _segment(project_id)
    if segment is None:
        raise KapaMisconfigured("no project can have this id: check the project id")
    return segment


def _segment(identifier: str) -> str | None:
    # Dots stay dots however they are quoted, and servers resolve them.
    if identifier in ("", ".", ".."):
        return None
    return quote(identifier, safe="", errors="replace")


# --- whole replies ---


@dataclass(frozen=True, slots=True)
class Integration:
    """One integration of a Kapa project; usage is tracked under its `id`."""

    id: str
    name: str = ""
    type: str = ""


def parse_answer(body: bytes) -> Answer:
    """Read the reply of a chat endpoint; raises KapaUnavailable when answer or ids are missing."""
    fields = _object(_json(body))
    text, thread_id = fields.get("answer"), _identifier(fields.get("thread_id"))
    question_answer_id = _identifier(fields.get("question_answer_id"))
    if not isinstance(text, str) or thread_id is None or question_answer_id is None:
        raise KapaUnavailable("garbled reply: answer, thread_id or question_answer_id is missing")
    return Answer(
        text=_encodable(text),
        thread_id=thread_id,
        question_answer_id=question_answer_id,
        is_uncertain=fields.get("is_uncertain") is True,
        sources=_sources(fields.get("relevant_sources")),
    )


def parse_integrations(body: bytes) -> list[Integration]:
    """Read the list of a project's integrations, bare or under `results`.

    Entries without an id are skipped; raises KapaUnavailable when there is no list.
    """
    reply = _json(body)
    entries = reply.get("results") if isinstance(reply, dict) else reply
    if not isinstance(entries, list):
        raise KapaUnavailable("garbled reply: no list of integrations")
    return [found for entry in entries if (found := _integration(entry)) is not None]


def _integration(entry: object) -> Integration | None:
    fields = entry if isinstance(entry, dict) else {"id": entry}
    identifier = _identifier(fields.get("id"))
    if identifier is None:
        return None
    # Kapa filters the list by `integration_type` (https://docs.kapa.ai/api/reference/integrations).
    name, kind = fields.get("name"), fields.get("type") or fields.get("integration_type")
    return Integration(
        id=identifier,
        name=_encodable(name) if isinstance(name, str) else "",
        type=_encodable(kind) if isinstance(kind, str) else "",
    )


# --- the stream ---


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer's text: a delta."""

    text: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Pages the answer rests on, one entry per retrieved chunk: the same page may stand here several times."""

    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What Kapa thinks of its own answer."""

    is_uncertain: bool


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The ids of thread and answer; the thread's may come early and alone."""

    thread_id: str | None
    question_answer_id: str | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The stream broke: Kapa said so, or what came cannot be read. Nothing after it counts."""

    reason: str


Piece = Text | Sources | Metadata | Identifiers | Failure


class StreamDecoder:
    """Turns the bytes of a streamed answer into pieces; any split of the same bytes gives the same pieces.

    Records are JSON objects that each end with U+241E. Unknown types and fields are ignored; a record that
    cannot be read gives a `Failure`. `is_over` tells that the end, an error or a broken record was seen, and
    that nothing after it counts; `is_said_to_end`, that some record called itself the last. Never raises.
    """

    __slots__ = ("_buffer", "is_over", "is_said_to_end")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.is_over = False
        self.is_said_to_end = False

    def feed(self, data: bytes) -> Sequence[Piece]:
        """Take the next bytes and give the pieces they complete."""
        buffer = self._buffer
        buffer += data
        # Most small chunks end no record, and are done with here.
        if _LAST_OF_DELIMITER not in data and len(buffer) < MAX_RECORD_BYTES and not self.is_over:
            return ()
        return self._completed(len(data))

    def _completed(self, fresh: int) -> list[Piece]:
        """Give the pieces of the records in the buffer, whose last `fresh` bytes are new."""
        buffer = self._buffer
        if self.is_over:
            buffer.clear()
            return []
        # A delimiter may have begun in the last two bytes that were there before.
        end = buffer.rfind(DELIMITER, max(0, len(buffer) - fresh - len(DELIMITER) + 1))
        pieces: list[Piece] = []
        if end >= 0:
            whole = buffer[:end]
            del buffer[: end + len(DELIMITER)]
            # To split one long record would copy it once more.
            pieces = self._read(whole.split(DELIMITER) if DELIMITER in whole else [whole])
        if len(buffer) >= MAX_RECORD_BYTES + len(DELIMITER) and not self.is_over:
            pieces.append(self._broken(_TOO_LONG))
        return pieces

    def end(self) -> list[Piece]:
        """Give the pieces of a last record that has no delimiter."""
        if self.is_over:
            return []
        rest, self._buffer = self._buffer, bytearray()
        return self._read([rest])

    def _read(self, records: Iterable[bytearray]) -> list[Piece]:
        pieces: list[Piece] = []
        for record in records:
            piece = self._piece(record)
            if piece is not None:
                pieces.append(piece)
            if self.is_over:
                break
        return pieces

    def _piece(self, record: bytearray) -> Piece | None:
        if len(record) > MAX_RECORD_BYTES:
            return self._broken(_TOO_LONG)
        line = record.decode("utf-8", "replace").strip()
        if not line:
            return None
        try:
            fields, end = _raw_decode(line)
            chunk = fields.get("chunk", fields)
            kind, content = chunk["type"], chunk.get("content")
            reader = _READERS.get(kind)
            piece = reader(content) if reader is not None else None
        except _BROKEN_RECORD:
            return self._broken(_UNREADABLE)
        if end != len(line):
            return self._broken(_UNREADABLE)
        self.is_said_to_end = self.is_said_to_end or chunk.get("stream_end") is True
        if kind == "error" or (kind == "identifiers" and self.is_said_to_end):
            self.is_over = True
        return piece

    def _broken(self, reason: str) -> Failure:
        self.is_over = True
        self._buffer.clear()
        return Failure(reason)


_UNREADABLE: Final = "garbled stream: a record cannot be read"
_TOO_LONG: Final = "garbled stream: a record is too long"
_BROKEN_RECORD: Final = (*_BROKEN_JSON, KeyError, TypeError, AttributeError)


def _text_piece(content: Any) -> Text | None:
    text = None if content is None else content.get("text")
    if text is None:
        return None
    return Text(text if text.isascii() else _encodable(text))


def _sources_piece(content: Any) -> Sources:
    return Sources(_sources(content.get("relevant_sources") if isinstance(content, dict) else None))


def _metadata_piece(content: Any) -> Metadata:
    return Metadata(isinstance(content, dict) and content.get("is_uncertain") is True)


def _identifiers_piece(content: Any) -> Identifiers | None:
    if not isinstance(content, dict):
        return None
    thread_id = _identifier(content.get("thread_id"))
    question_answer_id = _identifier(content.get("question_answer_id"))
    if thread_id is None and question_answer_id is None:
        return None
    return Identifiers(thread_id, question_answer_id)


def _error_piece(content: Any) -> Failure:
    reason = content.get("reason") if isinstance(content, dict) else content
    return Failure(reason if isinstance(reason, str) and reason else "Kapa gave no reason")


_READERS: Final[Mapping[object, Callable[[Any], Piece | None]]] = {
    "partial_answer": _text_piece,
    "relevant_sources": _sources_piece,
    "metadata": _metadata_piece,
    "identifiers": _identifiers_piece,
    "stream_start": _identifiers_piece,
    "error": _error_piece,
}


class AnswerBuilder:
    """Puts the pieces of one stream together; `secret` is kept out of every error."""

    def __init__(self, *, secret: str = "") -> None:
        self._secret = secret
        self._texts: list[str] = []
        self._sources: list[Source] = []
        self._is_uncertain = False
        self._thread_id: str | None = None
        self._question_answer_id: str | None = None
        self._failure: str | None = None

    @property
    def text(self) -> str:
        """The answer's text so far."""
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    @property
    def is_complete(self) -> bool:
        """Whether both ids are there and nothing failed, so that `finish` gives an answer."""
        return self._failure is None and None not in (self._thread_id, self._question_answer_id)

    def add(self, piece: Piece) -> None:
        """Take the next piece, in the order of the stream."""
        match piece:
            case Text(text):
                self._texts.append(text)
            case Sources(sources):
                self._sources.extend(sources)
            case Metadata(is_uncertain):
                self._is_uncertain = is_uncertain
            case Identifiers(thread_id, question_answer_id):
                self._thread_id = thread_id or self._thread_id
                self._question_answer_id = question_answer_id or self._question_answer_id
            case Failure(reason):
                self._failure = self._failure or redacted(reason, self._secret)

    def finish(self) -> Answer:
        """Give the whole answer; raises KapaUnavailable when the stream failed or ended too early."""
        if self._failure is not None:
            raise KapaUnavailable(self._failure, partial=self.text)
        if self._thread_id is None or self._question_answer_id is None:
            raise KapaUnavailable("truncated stream: it ended without identifiers", partial=self.text)
        return Answer(
            text=self.text,
            thread_id=self._thread_id,
            question_answer_id=self._question_answer_id,
            is_uncertain=self._is_uncertain,
            sources=tuple(self._sources),
        )


# --- refusals ---


def error_from(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    on_thread: bool,
    on_feedback: bool = False,
    now: float = 0.0,
    secret: str = "",
) -> KapaError:
    """Tell by status who must act on a reply that is no success.

    `on_thread` and `on_feedback` say what a 404 did not find: a thread or an answer instead of the project.
    `now` is the time in seconds since the epoch that a Retry-After date counts from, `secret` is what no
    error may repeat.
    """
    named = {name.lower(): value for name, value in headers.items()}
    reason = redacted(_reason(status, named, body), secret)
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500 or status < 300:
        return KapaUnavailable(
            reason,
            status=status,
            retry_after=retry_after(named.get("retry-after"), now),
            is_rate_limit=status == HTTPStatus.TOO_MANY_REQUESTS,
        )
    if status == HTTPStatus.NOT_FOUND and on_thread:
        return KapaThreadUnknown(reason, status=status)
    is_misplaced = status == HTTPStatus.NOT_FOUND and not on_feedback
    if status < 400 or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or is_misplaced:
        return KapaMisconfigured(reason, status=status)
    return KapaRefused(reason, status=status)


def retry_after(value: str | None, now: float) -> float | None:
    """Read a Retry-After header as seconds from `now` (seconds since the epoch), None where it says nothing.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after; fractions of seconds are seen as well.
    """
    if value is None:
        return None
    value = value.strip()
    if _NUMBER.fullmatch(value):
        seconds = float(value)
    else:
        try:
            at = parsedate_to_datetime(value)
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(0.0, seconds) if isfinite(seconds) else None


def redacted(text: str, secret: str) -> str:
    """Give the text's beginning as one printable line without the secret."""
    if secret:
        text = text.replace(secret, "[redacted]")
    line = _one_line(text[:_MAX_RAW_CHARS])
    # Once more: what stood between two halves of it may just have gone.
    return line.replace(secret, "[redacted]") if secret else line


def _reason(status: int, headers: Mapping[str, str], body: bytes) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    if 300 <= status < 400:
        return f"{phrase}: the address redirects to {headers.get('location', 'nowhere')}, which is not followed"
    detail = _detail(body)
    return f"{phrase}: {detail}" if detail else phrase


def _detail(body: bytes) -> str:
    """Read what Kapa says in `{"detail": "…"}` or `{"field": ["message"]}`; "" for HTML and all else."""
    try:
        fields = loads(body.decode("utf-8", "replace"))
    except _BROKEN_JSON:
        return ""
    if not isinstance(fields, dict):
        return ""
    if isinstance(fields.get("detail"), str):
        return str(fields["detail"])
    messages = ((name, value if isinstance(value, list) else [value]) for name, value in fields.items())
    said = [f"{name}: {text}" for name, texts in messages for text in texts if isinstance(text, str)]
    return "; ".join(said)


# --- shared readers of hostile values ---


def _json(body: bytes) -> Any:
    try:
        return loads(body.decode("utf-8", "replace"))
    except _BROKEN_JSON:
        pass
    raise KapaUnavailable("garbled reply: no JSON")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise KapaUnavailable("garbled reply: no JSON object")
    return value


def _identifier(value: object) -> str | None:
    return _encodable(value) if isinstance(value, str) and value else None


def _sources(entries: object) -> tuple[Source, ...]:
    if not isinstance(entries, list):
        return ()
    return tuple(source for entry in entries if (source := _source(entry)) is not None)


def _source(entry: object) -> Source | None:
    if not isinstance(entry, dict):
        return None
    url, title = entry.get("source_url"), entry.get("title")
    if not isinstance(url, str) or not url.strip():
        return None
    url = _encodable(url.strip())
    has_title = isinstance(title, str) and title.strip()
    return Source(
        url=url,
        title=_encodable(str(title).strip()) if has_title else url,
        is_internal=bool(entry.get("contains_internal_data")),
    )


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can spell but UTF-8 cannot carry onwards."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 1] + "…"
