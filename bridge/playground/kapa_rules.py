"""What the simulated Kapa accepts, how it refuses, and how its records look on the wire.

Pure. Kapa's quickstart documents the requests; the stream is what its own clients read. State is `kapa`'s business.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from bridge.playground.serving import Json

DELIMITER = "\u241e".encode()
"""Ends every record of a stream."""
_WORDS = re.compile(r"\s*\S+\s*|\s+")
_REASONS = ("incorrect", "irrelevant", "unaddressed")


class KapaRefusalError(Exception):
    """An answer other than success: an HTTP status and a JSON body."""

    def __init__(self, status: int, body: Json, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def not_found() -> KapaRefusalError:
    """Kapa does not know this address, project or thread."""
    return KapaRefusalError(404, {"detail": "Not found."})


def unknown(field: str, value: Any) -> KapaRefusalError:
    """A field names something that does not exist."""
    return KapaRefusalError(400, {field: [f'Invalid pk "{value}" - object does not exist.']})


def check_chat(body: Json) -> None:
    """Raise KapaRefusalError 400 with the problem of each field of a chat request."""
    problems = _text_problem(body, "query")
    for field in ("metadata", "user"):
        if body.get(field) is not None and not isinstance(body[field], dict):
            problems[field] = ["Invalid data. Expected a dictionary."]
    if body.get("integration_id") is not None and not isinstance(body["integration_id"], str):
        problems["integration_id"] = ["Must be a valid UUID."]
    if problems:
        raise KapaRefusalError(400, problems)


def check_feedback(body: Json) -> None:
    """Raise KapaRefusalError 400 with the problem of each field of a feedback upsert."""
    problems = _text_problem(body, "question_answer") | _text_problem(body, "user_identifier")
    reaction = body.get("reaction")
    if "reaction" not in body:
        problems["reaction"] = ["This field is required."]
    elif reaction not in ("upvote", "downvote"):
        problems["reaction"] = [f'"{reaction}" is not a valid choice.']
    comment = body.get("comment")
    if comment is not None and not _is_comment(comment):
        problems["comment"] = ["Invalid data."]
    if problems:
        raise KapaRefusalError(400, problems)


def _text_problem(body: Json, field: str) -> Json:
    value = body.get(field)
    if field not in body or value is None:
        return {field: ["This field is required."]}
    if not isinstance(value, str):
        return {field: ["Not a valid string."]}
    return {} if value.strip() else {field: ["This field may not be blank."]}


def _is_comment(comment: Any) -> bool:
    return (
        isinstance(comment, dict)
        and isinstance(comment.get("issue", ""), str)
        and all(isinstance(comment.get(reason, False), bool) for reason in _REASONS)
    )


def pieces(text: str, words: int = 3) -> Iterator[str]:
    """Cut a text into the small deltas of a stream; joined, they are the text."""
    parts = _WORDS.findall(text)
    for start in range(0, len(parts), words):
        yield "".join(parts[start : start + words])


def record(kind: str, content: Json, *, is_last: bool = False) -> bytes:
    """Give one record of a stream, delimiter included."""
    chunk = {"chunk": {"type": kind, "content": content, "stream_end": is_last}}
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + DELIMITER
