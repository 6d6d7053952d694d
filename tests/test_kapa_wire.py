from collections.abc import Callable
from json import dumps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.kapa import wire
from bridge.kapa.wire import (
    DELIMITER,
    MAX_REASON_CHARS,
    MAX_RECORD_BYTES,
    AnswerBuilder,
    Failure,
    Identifiers,
    Integration,
    KapaError,
    KapaMisconfigured,
    KapaRefused,
    KapaThreadUnknown,
    KapaUnavailable,
    Metadata,
    Piece,
    Sources,
    StreamDecoder,
    Text,
)
from bridge.models import Answer, Query, Reaction, Reason, Source, Vote

QUERY = Query(text="How do I start?", person="slack:T1:U1", origin_url="https://acme.slack.com/archives/C1/p1")
UNREADABLE = Failure("garbled stream: a record cannot be read")


def chunk(kind: str, content: object, *, stream_end: object = False) -> dict[str, Any]:
    return {"chunk": {"type": kind, "content": content, "stream_end": stream_end}}


def stream_of(*records: object) -> bytes:
    return b"".join(dumps(record, ensure_ascii=False).encode() + DELIMITER for record in records)


def decoded(*parts: bytes) -> list[Piece]:
    decoder = StreamDecoder()
    pieces = [piece for part in parts for piece in decoder.feed(part)]
    return pieces + decoder.end()


IDS = chunk("identifiers", {"thread_id": "t1", "question_answer_id": "q1"}, stream_end=True)


# --- requests ---


def test_paths_end_in_a_slash_and_name_what_they_are_for() -> None:
    assert wire.integrations_path("p1") == "/query/v1/projects/p1/integrations/"
    assert wire.chat_path("p1", None, stream=False) == "/query/v1/projects/p1/chat/"
    assert wire.chat_path("p1", None, stream=True) == "/query/v1/projects/p1/chat/stream/"
    assert wire.chat_path("p1", "t1", stream=False) == "/query/v1/threads/t1/chat/"
    assert wire.chat_path("p1", "t1", stream=True) == "/query/v1/threads/t1/chat/stream/"
    assert wire.feedback_path() == "/query/v1/feedback/upsert/"


@given(st.text(alphabet=st.characters()))
def test_no_id_leaves_its_place_in_the_path(identifier: str) -> None:
    if identifier in ("", ".", ".."):
        with pytest.raises(KapaThreadUnknown):
            wire.chat_path("p1", identifier, stream=False)
        with pytest.raises(KapaMisconfigured):
            wire.integrations_path(identifier)
        return
    path = wire.chat_path("p1", identifier, stream=False)
    before, inside, after = path.partition("/query/v1/threads/")[2].partition("/chat/")
    assert (inside, after) == ("/chat/", "")
    assert before
    assert before not in (".", "..")
    assert not set(before) & set("/?#\\;: \r\n")
    assert before.isascii()


@pytest.mark.parametrize("identifier", [".", "..", ""])
def test_an_id_that_a_server_would_resolve_away_is_no_id(identifier: str) -> None:
    with pytest.raises(KapaThreadUnknown):
        wire.chat_path("p1", identifier, stream=True)
    with pytest.raises(KapaMisconfigured):
        wire.chat_path(identifier, None, stream=True)
    with pytest.raises(KapaMisconfigured):
        wire.integrations_path(identifier)


def test_a_chat_body_says_who_asks_where() -> None:
    assert wire.chat_body(QUERY, "i1") == {
        "query": "How do I start?",
        "integration_id": "i1",
        "metadata": {"origin_url": "https://acme.slack.com/archives/C1/p1"},
        "user": {"unique_client_id": "slack:T1:U1"},
    }


def test_a_chat_body_has_no_empty_fields() -> None:
    assert wire.chat_body(Query(text="q", person="", origin_url=""), "i1") == {
        "query": "q",
        "integration_id": "i1",
    }


ALL_FALSE = {"incorrect": False, "irrelevant": False, "unaddressed": False}


@pytest.mark.parametrize(
    ("vote", "clear", "comment"),
    [
        (Vote(Reaction.UPVOTE), False, None),
        (Vote(Reaction.DOWNVOTE), False, None),
        (Vote(Reaction.UPVOTE), True, {"issue": "", **ALL_FALSE}),
        (Vote(Reaction.UPVOTE, words="Great"), False, {"issue": "Great", **ALL_FALSE}),
        (
            Vote(Reaction.DOWNVOTE, frozenset({Reason.INCORRECT})),
            False,
            {"issue": "", **ALL_FALSE, "incorrect": True},
        ),
        (
            Vote(Reaction.DOWNVOTE, frozenset(Reason), "No"),
            True,
            {"issue": "No", "incorrect": True, "irrelevant": True, "unaddressed": True},
        ),
    ],
)
def test_a_feedback_body_has_a_whole_comment_or_none(
    vote: Vote, clear: bool, comment: dict[str, object] | None
) -> None:
    body = wire.feedback_body("q1", "slack:T1:U1", vote, clear=clear)
    assert body.pop("comment", None) == comment
    assert body == {
        "question_answer": "q1",
        "reaction": vote.reaction.value,
        "user_identifier": "slack:T1:U1",
    }
    assert type(body["reaction"]) is str


# --- the stream ---


def test_a_stream_becomes_pieces_and_an_answer() -> None:
    source = {"title": "Guide|Linux", "source_url": "https://d/i", "contains_internal_data": True}
    data = stream_of(
        chunk("stream_start", {"thread_id": "t0"}),
        chunk("partial_answer", {"text": "To "}),
        chunk("agent_activity_update", {"anything": 1}),
        chunk("partial_answer", {"text": "start 🎉"}),
        chunk("relevant_sources", {"relevant_sources": [source, source]}),
        chunk("metadata", {"is_uncertain": True}),
        IDS,
    )
    page = Source("https://d/i", "Guide|Linux", is_internal=True)
    pieces = decoded(data)
    assert pieces == [
        Identifiers("t0", None),
        Text("To "),
        Text("start 🎉"),
        Sources((page, page)),
        Metadata(True),
        Identifiers("t1", "q1"),
    ]
    builder = AnswerBuilder()
    for piece in pieces:
        builder.add(piece)
    assert builder.is_complete
    assert builder.finish() == Answer("To start 🎉", "t1", "q1", is_uncertain=True, sources=(page, page))


@pytest.mark.parametrize(
    ("record", "pieces"),
    [
        (chunk("partial_answer", {"text": "a", "new": 1}), [Text("a")]),
        (chunk("partial_answer", {"text": ""}), [Text("")]),
        (chunk("partial_answer", {"text": None}), []),
        (chunk("partial_answer", {}), []),
        (chunk("partial_answer", None), []),
        (chunk("partial_answer", {"text": 5}), [UNREADABLE]),
        (chunk("partial_answer", "a"), [UNREADABLE]),
        (chunk("partial_answer", ["a"]), [UNREADABLE]),
        ({"chunk": {"type": "partial_answer"}}, []),
        ({"type": "partial_answer", "content": {"text": "bare"}}, [Text("bare")]),
        (chunk("from_the_future", {"text": "a"}), []),
        ({"chunk": {"type": "from_the_future"}}, []),
        ({"chunk": {"type": 5}}, []),
        ({"chunk": {"type": []}}, [UNREADABLE]),
        ({"chunk": {}}, [UNREADABLE]),
        ({"chunk": None}, [UNREADABLE]),
        ({}, [UNREADABLE]),
        ([], [UNREADABLE]),
        (None, [UNREADABLE]),
        ("partial_answer", [UNREADABLE]),
        (7, [UNREADABLE]),
        (chunk("relevant_sources", None), [Sources(())]),
        (chunk("relevant_sources", {"relevant_sources": None}), [Sources(())]),
        (chunk("relevant_sources", {"relevant_sources": {"a": 1}}), [Sources(())]),
        (chunk("metadata", None), [Metadata(False)]),
        (chunk("metadata", {"is_uncertain": "yes"}), [Metadata(False)]),
        (chunk("identifiers", None), []),
        (chunk("identifiers", {"thread_id": 5, "question_answer_id": ""}), []),
        (chunk("identifiers", {"thread_id": None, "question_answer_id": "q"}), [Identifiers(None, "q")]),
        (chunk("stream_start", {"thread_id": "t"}), [Identifiers("t", None)]),
        (chunk("stream_start", {}), []),
        (chunk("error", {"reason": "No model"}, stream_end=True), [Failure("No model")]),
        ({"type": "error", "content": {"reason": "No model"}, "stream_end": True}, [Failure("No model")]),
        (chunk("error", "No model"), [Failure("No model")]),
        (chunk("error", {"reason": None}), [Failure("Kapa gave no reason")]),
        (chunk("error", None), [Failure("Kapa gave no reason")]),
    ],
)
def test_one_record(record: object, pieces: list[Piece]) -> None:
    assert decoded(stream_of(record)) == pieces


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ({"source_url": "https://d/"}, Source("https://d/", "https://d/")),
        ({"source_url": " https://d/ ", "title": " T "}, Source("https://d/", "T")),
        ({"source_url": "https://d/", "title": None}, Source("https://d/", "https://d/")),
        ({"source_url": "https://d/", "title": 5}, Source("https://d/", "https://d/")),
        (
            {"source_url": "https://d/", "title": "T", "contains_internal_data": None},
            Source("https://d/", "T"),
        ),
        (
            {"source_url": "https://d/", "title": "T", "contains_internal_data": 1},
            Source("https://d/", "T", True),
        ),
        ({"source_url": "", "title": "T"}, None),
        ({"source_url": "  ", "title": "T"}, None),
        ({"source_url": None, "title": "T"}, None),
        ({"title": "T"}, None),
        ("https://d/", None),
        (None, None),
    ],
)
def test_one_source(entry: object, source: Source | None) -> None:
    expected = () if source is None else (source,)
    record = chunk("relevant_sources", {"relevant_sources": [entry]})
    assert decoded(stream_of(record)) == [Sources(expected)]


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"", []),
        (DELIMITER * 3, []),
        (b" \r\n" + DELIMITER + b"\n", []),
        (b"\n " + dumps(chunk("partial_answer", {"text": "a"}), indent=1).encode() + b"\r\n", [Text("a")]),
        (stream_of(IDS)[: -len(DELIMITER)], [Identifiers("t1", "q1")]),
        (stream_of(IDS)[:-1], [UNREADABLE]),
        (stream_of(IDS)[:-9], [UNREADABLE]),
        (b"<html>Bad gateway</html>", [UNREADABLE]),
        (b'{"chunk":{"type":"x"}} {"chunk":{"type":"x"}}' + DELIMITER, [UNREADABLE]),
        (b'{"chunk":' * 100_000 + DELIMITER, [UNREADABLE]),
        (b'{"chunk":{"type":"x","n":' + b"9" * 5_000 + b"}}" + DELIMITER, [UNREADABLE]),
        (
            b'{"type":"partial_answer","content":{"text":"a\xff\xe2\x90b"}}' + DELIMITER,
            [Text("a\ufffd\ufffdb")],
        ),
        (b'{"type":"partial_answer","content":{"text":"\\ud83d\\ude00"}}' + DELIMITER, [Text("😀")]),
        (
            b'{"type":"partial_answer","content":{"text":"a\\ud83db\\ude00"}}' + DELIMITER,
            [Text("a\ufffdb\ufffd")],
        ),
        (b'{"type":"partial_answer","content":{"text":"a\\u241eb"}}' + DELIMITER, [Text("a\u241eb")]),
        (stream_of(chunk("partial_answer", {"text": "a"})) + b"{" + DELIMITER, [Text("a"), UNREADABLE]),
    ],
)
def test_bytes_of_a_stream(data: bytes, pieces: list[Piece]) -> None:
    assert decoded(data) == pieces
    assert decoded(*(data[at : at + 1] for at in range(min(len(data), 10_000))), data[10_000:]) == pieces


@pytest.mark.parametrize("last", [IDS, chunk("error", {"reason": "r"}), {}])
def test_nothing_after_the_end_counts(last: object) -> None:
    decoder = StreamDecoder()
    pieces = decoder.feed(stream_of(last, chunk("partial_answer", {"text": "late"})) + b"}{" + DELIMITER)
    assert len(pieces) == 1
    assert decoder.is_over
    assert decoder.feed(stream_of(IDS)) == []
    assert decoder.end() == []


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("too_many", [0, 1])
def test_a_record_has_a_bound(is_split: bool, too_many: int) -> None:
    empty = dumps(chunk("partial_answer", {"text": ""})).encode()
    text = "x" * (MAX_RECORD_BYTES - len(empty) + too_many)
    data = stream_of(chunk("partial_answer", {"text": text}))
    split = [data[at : at + 1_000_000] for at in range(0, len(data), 1_000_000)]
    pieces = decoded(*split[:-1], split[-1][:-1], split[-1][-1:]) if is_split else decoded(data)
    assert pieces == ([Failure("garbled stream: a record is too long")] if too_many else [Text(text)])


def test_an_endless_record_is_not_kept() -> None:
    decoder = StreamDecoder()
    block = b"x" * (1024 * 1024)
    fed = [piece for _ in range(64) for piece in decoder.feed(block)]
    assert fed == [Failure("garbled stream: a record is too long")]
    assert len(decoder._buffer) == 0


class CountingBuffer(bytearray):
    """A buffer that counts the bytes that are looked at."""

    looked_at = 0

    def rfind(self, sub: Any, start: Any = 0, *rest: Any) -> int:
        self.looked_at += len(self) - start
        return super().rfind(sub, start, *rest)


def test_each_byte_of_a_long_record_is_searched_a_bounded_number_of_times() -> None:
    decoder = StreamDecoder()
    counting = decoder._buffer = CountingBuffer()
    data = stream_of(chunk("partial_answer", {"text": "x" * 20_000}))
    for at in range(len(data)):
        decoder.feed(data[at : at + 1])
    assert 0 < counting.looked_at <= len(DELIMITER) * len(data)
    assert decoder.end() == []


# Texts that hold whole and half delimiters, and characters of every UTF-8 length.
texts = st.text(alphabet=st.one_of(st.sampled_from("␞␝␟\u2410â\x90\x9e\n"), st.characters(codec="utf-8")))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(
    ["partial_answer", "relevant_sources", "metadata", "identifiers", "stream_start", "error", "new"]
)
texts_only = st.builds(lambda text: chunk("partial_answer", {"text": text}), texts)
any_record = st.one_of(
    texts_only,
    texts_only,
    st.builds(lambda kind, content, end: chunk(kind, content, stream_end=end), kinds, json_values, st.booleans()),
    json_values,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def framed(records: list[Any], space: bytes) -> bytes:
    # Kapa escapes a delimiter inside of a text: raw, it would end the record.
    lines = [dumps(record, ensure_ascii=False).replace("␞", "\\u241e").encode() for record in records]
    return b"".join(space + line + space + DELIMITER for line in lines)


@given(st.lists(texts_only), st.sampled_from([b"", b"\n", b" \r\n"]), st.lists(st.integers(0)))
def test_texts_arrive_whole_however_their_bytes_are_split(records: list[Any], space: bytes, places: list[int]) -> None:
    expected = [Text(record["chunk"]["content"]["text"]) for record in records]
    assert decoded(*cut(framed(records, space), places)) == expected


@given(st.lists(any_record), st.binary(max_size=8), st.lists(st.integers(0)))
def test_any_split_of_any_records_gives_the_same_pieces(records: list[Any], tail: bytes, places: list[int]) -> None:
    data = framed(records, b"") + tail
    whole = decoded(data)
    assert decoded(*cut(data, places)) == whole
    assert decoded(*(bytes([byte]) for byte in data)) == whole


half_records = st.sampled_from(
    [b"\xe2", b"\x90", b"\x9e", DELIMITER, b'{"type":"partial_answer","content":', b'{"text":"', b'"}}', b"\\ud83d"]
)
any_bytes = st.lists(half_records | st.binary(max_size=6)).map(b"".join)


@given(any_bytes, st.lists(st.integers(0)))
def test_any_bytes_end_in_pieces_and_an_answer_or_an_error(data: bytes, places: list[int]) -> None:
    pieces = decoded(*cut(data, places))
    assert pieces == decoded(data)
    builder = AnswerBuilder()
    for piece in pieces:
        builder.add(piece)
    builder.text.encode()
    if builder.is_complete:
        assert isinstance(builder.finish(), Answer)
    else:
        with pytest.raises(KapaUnavailable):
            builder.finish()


# --- building an answer ---


def test_an_answer_without_ids_is_truncated_and_keeps_its_text() -> None:
    builder = AnswerBuilder()
    builder.add(Text("Half an "))
    builder.add(Text("answer"))
    builder.add(Identifiers("t1", None))
    assert builder.text == "Half an answer"
    with pytest.raises(KapaUnavailable, match="truncated") as caught:
        builder.finish()
    assert caught.value.partial == "Half an answer"
    assert "Half" not in str(caught.value)
    assert "Half" not in repr(caught.value)


def test_the_first_failure_is_told_without_the_secret() -> None:
    builder = AnswerBuilder(secret="sesame")
    pieces: list[Piece] = [Text("a"), Failure("bad key sesame\x1b[31m"), Failure("second"), Identifiers("t1", "q1")]
    for piece in pieces:
        builder.add(piece)
    assert not builder.is_complete
    with pytest.raises(KapaUnavailable) as caught:
        builder.finish()
    assert caught.value.reason == "bad key [redacted] [31m"
    assert caught.value.partial == "a"


def test_ids_may_come_one_by_one() -> None:
    builder = AnswerBuilder()
    pieces: list[Piece] = [Identifiers("t1", None), Text("a"), Identifiers(None, "q1")]
    for piece in pieces:
        assert not builder.is_complete
        builder.add(piece)
    assert builder.finish() == Answer("a", "t1", "q1")


# --- whole replies ---


def test_a_whole_answer() -> None:
    reply = {
        "answer": "Install it",
        "thread_id": "t1",
        "question_answer_id": "q1",
        "is_uncertain": True,
        "relevant_sources": [{"source_url": "https://d/", "title": "D"}, {"source_url": ""}],
        "new": {},
    }
    expected = Answer("Install it", "t1", "q1", is_uncertain=True, sources=(Source("https://d/", "D"),))
    assert wire.parse_answer(dumps(reply).encode()) == expected


def test_a_whole_answer_of_only_what_is_needed() -> None:
    assert wire.parse_answer(b'{"answer":"a","thread_id":"t","question_answer_id":"q"}') == Answer("a", "t", "q")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"answer":null,"thread_id":"t","question_answer_id":"q"}',
        b'{"answer":"a","thread_id":"","question_answer_id":"q"}',
        b'{"answer":"a","thread_id":"t","question_answer_id":5}',
        b'{"answer":"a","thread_id":"t"}',
    ],
)
def test_what_is_no_answer_is_garbled(body: bytes) -> None:
    with pytest.raises(KapaUnavailable, match="garbled"):
        wire.parse_answer(body)


@pytest.mark.parametrize(
    ("body", "integrations"),
    [
        (b"[]", []),
        (b'[{"id":"a","name":"N","type":"API","x":1}]', [Integration("a", "N", "API")]),
        (b'[{"id":"a","name":null,"type":5}]', [Integration("a")]),
        (b'[{"id":"a","integration_type":"WIDGET"}]', [Integration("a", "", "WIDGET")]),
        (b'{"count":1,"results":[{"id":"a"}]}', [Integration("a")]),
        (b'["a",{"id":""},{"name":"N"},5,null,[]]', [Integration("a")]),
    ],
)
def test_integrations(body: bytes, integrations: list[Integration]) -> None:
    assert wire.parse_integrations(body) == integrations


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'"a"', b'{"results":{}}', b"5"])
def test_what_is_no_list_of_integrations_is_garbled(body: bytes) -> None:
    with pytest.raises(KapaUnavailable, match="garbled"):
        wire.parse_integrations(body)


@given(st.one_of(any_bytes, json_values.map(lambda value: dumps(value).encode())))
def test_any_body_is_parsed_or_a_kapa_error(body: bytes) -> None:
    parsers: tuple[Callable[[bytes], object], ...] = (wire.parse_answer, wire.parse_integrations)
    for parse in parsers:
        try:
            result = parse(body)
        except KapaUnavailable:
            continue
        assert isinstance(result, Answer | list)


# --- errors ---


@pytest.mark.parametrize(
    ("status", "on_project", "on_thread", "on_feedback"),
    [
        *((status, KapaMisconfigured, KapaMisconfigured, KapaMisconfigured) for status in (301, 302, 304, 308)),
        *((status, KapaMisconfigured, KapaMisconfigured, KapaMisconfigured) for status in (401, 403)),
        (404, KapaMisconfigured, KapaThreadUnknown, KapaRefused),
        *((status, KapaRefused, KapaRefused, KapaRefused) for status in (400, 402, 405, 406, 409, 413, 415, 422)),
        *((status, KapaUnavailable, KapaUnavailable, KapaUnavailable) for status in (408, 429, 500, 502, 503, 504)),
        *((status, KapaUnavailable, KapaUnavailable, KapaUnavailable) for status in (101, 529, 599, 700)),
    ],
)
def test_the_status_says_who_must_act(
    status: int, on_project: type[KapaError], on_thread: type[KapaError], on_feedback: type[KapaError]
) -> None:
    project = wire.error_from(status, {}, b"", on_thread=False)
    thread = wire.error_from(status, {}, b"", on_thread=True)
    feedback = wire.error_from(status, {}, b"", on_thread=False, on_feedback=True)
    assert (type(project), type(thread), type(feedback)) == (on_project, on_thread, on_feedback)
    assert project.status == thread.status == feedback.status == status
    assert str(status) in str(project)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"detail":"Not now."}', "Bad Request: Not now."),
        (b'{"detail":"a\\u0000b\\n\\u202ec"}', "Bad Request: a b c"),
        (
            b'{"query":["This field is required.","Really."]}',
            "Bad Request: query: This field is required.; query: Really.",
        ),
        (b'{"query":"Too long."}', "Bad Request: query: Too long."),
        (b'{"detail":["Throttled."]}', "Bad Request: detail: Throttled."),
        (b'{"query":[{"a":1}],"n":5}', "Bad Request"),
        (b"<html><body>Bad gateway</body></html>", "Bad Request"),
        (b"plain words", "Bad Request"),
        (b'["a"]', "Bad Request"),
        (b"", "Bad Request"),
        (b"\xff\xfe", "Bad Request"),
        (b"[" * 100_000, "Bad Request"),
    ],
)
def test_the_detail_of_an_error(body: bytes, reason: str) -> None:
    assert wire.error_from(400, {}, body, on_thread=False).reason == reason


def test_a_redirect_names_where_it_leads() -> None:
    error = wire.error_from(302, {"Location": "https://elsewhere/"}, b"", on_thread=True)
    assert "https://elsewhere/" in error.reason
    assert isinstance(error, KapaMisconfigured)


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
@pytest.mark.parametrize("status", [429, 503])
def test_an_unavailable_kapa_says_for_how_long(name: str, status: int) -> None:
    error = wire.error_from(status, {name: "2.5"}, b"", on_thread=True)
    assert isinstance(error, KapaUnavailable)
    assert error.retry_after == 2.5
    assert error.is_rate_limit is (status == 429)
    assert error.partial == ""


def test_a_retry_after_date_counts_from_now() -> None:
    headers = {"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}
    error = wire.error_from(429, headers, b"", on_thread=False, now=15.0)
    assert isinstance(error, KapaUnavailable)
    assert error.retry_after == 45.0


@given(st.integers(100, 999), st.text(), st.sampled_from(["s3cret-key", "k/é\\y"]), st.integers(0, 400))
def test_a_reason_is_one_bounded_line_without_the_key(status: int, text: str, key: str, padding: int) -> None:
    body = dumps({"detail": "x" * padding + key + text + key}).encode()
    error = wire.error_from(status, {"Location": text + key}, body, on_thread=False, secret=key)
    assert key not in str(error)
    assert key not in repr(error)
    assert len(error.reason) <= MAX_REASON_CHARS
    assert error.reason.isprintable()
    assert error.reason.strip() == error.reason != ""


@pytest.mark.parametrize("padding", ["x" * 170, " " * 3970])
def test_a_key_is_not_cut_into_a_readable_half(padding: str) -> None:
    key = "0123456789" * 4
    body = dumps({"detail": padding + key}).encode()
    assert "01234" not in wire.error_from(400, {}, body, on_thread=False, secret=key).reason


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", 0.0),
        ("+3", 3.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e400", None),
        ("9" * 5000, None),
        ("1_0", None),
        ("٣", None),
        ("Thu, 01 Jan 1970 00:17:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:17:40 -0000", 60.0),
        ("Thu, 01 Jan 1970 01:17:40 +0100", 60.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 +999999", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert wire.retry_after(value, 1000.0) == seconds


near_dates = st.lists(
    st.sampled_from(["Thu,", "01", "Jan", "1970", "00:00:00", "GMT", "+9999", "-0000", "0", "(", '"'])
    | st.text(max_size=3)
).map(" ".join)


@given(st.one_of(near_dates, st.text(), st.floats().map(str), st.integers().map(str)), st.floats(0, 1e12))
def test_any_retry_after_is_a_usable_wait_or_none(value: str, now: float) -> None:
    seconds = wire.retry_after(value, now)
    assert seconds is None or 0 <= seconds < float("inf")
