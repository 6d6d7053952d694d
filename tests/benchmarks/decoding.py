"""How fast the bytes of a streamed answer become pieces: the bridge's decoder, beside bare JSON on cut records."""

import gc
import json
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter

from bridge.kapa.wire import DELIMITER, StreamDecoder
from bridge.playground.kapa_rules import pieces, record
from tests.benchmarks import table
from tests.benchmarks.harness import Plan
from tests.benchmarks.table import Row

BARE, CALLED = "json.loads", "json.loads, and a call for each chunk"
CHUNKS = (1, 7, 64, 1024, 65_536)
# In Python the calls alone take longer than all of the JSON.
SMALL_CHUNKS = (1, 7)
PIECES = 2_000
LENGTHS = (1, 4, 16)
LINEAR_CHUNK = 64
LONG_BYTES = 128 * 1024
ROUNDS = 7
# The quickest of a few is what the code takes; the rest is the machine's.
REPEATS = 3
TEXT = "Threads are stored in Redis with a lifetime of ninety days, and are found again by *every* worker: “so there”. "


def stream(count: int) -> bytes:
    """Give the body of an answer with so many pieces of text, as Kapa sends it."""
    deltas = list(pieces(TEXT * (1 + count // 6)))[:count]
    source = {"title": "Redis|Threads", "source_url": "https://docs.example.com/redis", "contains_internal_data": False}
    ids = {"thread_id": "abd4eef3-46e4-46d6-956a-accbed07fa7c", "question_answer_id": "ea8cdf61-82c1-4469-95be-ca3fa30"}
    return (
        b"".join(record("partial_answer", {"text": delta}) for delta in deltas)
        + record("relevant_sources", {"relevant_sources": [source] * 8})
        + record("metadata", {"is_uncertain": False})
        + record("identifiers", ids, is_last=True)
    )


def cut(body: bytes, size: int) -> list[bytes]:
    """Give a body in chunks of a size."""
    return [body[start : start + size] for start in range(0, len(body), size)]


def decode(chunks: Sequence[bytes]) -> int:
    """Decode a stream; give the number of its pieces."""
    decoder, count = StreamDecoder(), 0
    for chunk in chunks:
        count += len(decoder.feed(chunk))
    return count + len(decoder.end())


def load(records: Sequence[bytes]) -> int:
    """Read records as JSON; give their number."""
    return len([json.loads(one) for one in records])


class Gathering:
    """The least that can be done with chunks: they are taken one by one, and read once they are records."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._buffer += chunk

    def records(self) -> list[bytes]:
        """Give what was taken."""
        return bytes(self._buffer).split(DELIMITER)[:-1]


def gather(chunks: Sequence[bytes]) -> int:
    """Take chunks, and read their records as JSON; give their number."""
    gathering = Gathering()
    for chunk in chunks:
        gathering.feed(chunk)
    return load(gathering.records())


def seconds(work: Callable[[], int], expected: int) -> float:
    """Give how long a piece of work takes; raises RuntimeError where it does not give what it should."""
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(REPEATS):
            started = perf_counter()
            found = work()
            best = min(best, perf_counter() - started)
            if found != expected:
                raise RuntimeError(f"{found} pieces were decoded, not {expected}")
    finally:
        gc.enable()
    return best


async def decoding(plan: Plan) -> AsyncIterator[Row]:
    """Time the decoder with chunks of many sizes, and see that it takes no longer than the length says."""
    rounds, body = max(plan.rounds, ROUNDS), stream(plan.load(PIECES))
    for size in (*CHUNKS, len(body)):
        yield _beside(body, size, rounds, is_called=False)
        if size in SMALL_CHUNKS:
            yield _beside(body, size, rounds, is_called=True)
    streams = [stream(plan.load(PIECES) * times) for times in LENGTHS]
    yield _linear("stream decoding, 16 times the records", streams, rounds)
    longs = [record("partial_answer", {"text": "a" * plan.load(LONG_BYTES) * times}) for times in LENGTHS]
    yield _linear("stream decoding, one record 16 times as long", longs, rounds)


def _beside(body: bytes, size: int, rounds: int, *, is_called: bool) -> Row:
    """Compare the decoder with JSON alone or, where it `is_called` for each chunk too, with that."""
    records, chunks, megabytes = body.split(DELIMITER)[:-1], cut(body, size), len(body) / 1e6
    speeds, floors = [], []
    for _ in range(rounds):
        floor = seconds(lambda: gather(chunks) if is_called else load(records), len(records))
        floors.append(megabytes / floor)
        speeds.append(megabytes / seconds(lambda: decode(chunks), len(records)))
    kind = f"chunks of {size:,} {'byte' if size == 1 else 'bytes'}" if size < len(body) else "whole"
    what = f"stream decoding, {kind}{', beside as many calls' if is_called else ''}"
    return table.compared(what, "MB/s", speeds, CALLED if is_called else BARE, floors, table.at_least_times(0.5))


def _linear(what: str, bodies: Sequence[bytes], rounds: int) -> Row:
    """Compare the time that a byte takes in the longest of some streams and in the shortest."""
    found: list[list[float]] = [[] for _ in bodies]
    cuts = [(cut(body, LINEAR_CHUNK), body.count(DELIMITER), len(body)) for body in bodies]
    for _ in range(rounds):
        for (chunks, count, length), times in zip(cuts, found, strict=True):
            times.append(1e9 * seconds(lambda chunks=chunks: decode(chunks), count) / length)  # type: ignore[misc]
    # A little more is the cache's: twice as much would be more than linear.
    linear = table.Aim("linear (≤ 1.3 x a byte)", lambda row: (row.ratio or 0) / 1.3)
    return table.compared(what, "ns a byte", found[-1], "the short one", found[0], linear)
