"""The scenarios of the fault matrix: what people do in a cell, and what must come of it."""

from bridge.messages import Messages
from bridge.playground.kapa import Asked
from tests.faults.gate import SLACK, Action, Call
from tests.faults.lane import DRAFTED, STREAMED, Cell, Scenario

OFF = {"BRIDGE_STREAMING": "off"}
EDIT = {"BRIDGE_STREAMING": "edit"}
WORDS = Messages()


async def _conversation(cell: Cell) -> None:
    await cell.ask("What is it", held_until=STREAMED)
    await cell.ask("And then", held_until=STREAMED)


async def _question(cell: Cell) -> None:
    await cell.ask("What is it")


async def _slow(cell: Cell) -> None:
    await cell.ask("What is it", held_until=(*DRAFTED, "RENEW", "RENEW"))


async def _at_once(cell: Cell) -> None:
    await cell.ask("What is it", held_until=())


async def _votes(cell: Cell) -> None:
    await cell.ask("What is it", held_until=())
    incorrect = {"issue": "", "irrelevant": False, "incorrect": True, "unaddressed": False}
    await cell.vote("x", "downvote", incorrect)
    await cell.vote("+1", "upvote", incorrect | {"incorrect": False})


async def _edited(cell: Cell) -> None:
    await cell.ask("What is it", held_until=())
    await cell.edit("What was it")


async def _deleted(cell: Cell) -> None:
    await cell.ask("What is it", held_until=())
    await cell.delete()


async def _refused(cell: Cell) -> None:
    await cell.ask("What is it", sentences=[WORDS.refused], held_until=())


async def _out(cell: Cell) -> None:
    sentences = [WORDS.unavailable, WORDS.busy.format(minutes=1)]
    await cell.ask("What is it", sentences=sentences, is_dead=True, held_until=())


async def _long(cell: Cell) -> None:
    await cell.ask("What is it", parts=3)


def _many_words(asked: Asked) -> str:
    """Give an answer of three messages in a few long words, so that it streams in a few pieces."""
    words = " ".join(f"{number}{'o' * 900}" for number in range(30))
    return f"{asked.query}: {words} {asked.question_answer_id}"


CONVERSATION = Scenario("a conversation that is streamed", _conversation)
DRAFTS = Scenario("an answer that is shown by edits", _question, EDIT)
SLOW = Scenario("an answer that outlasts a lease's renewals", _slow, EDIT)
WHOLE = Scenario("an answer shown whole", _at_once, OFF)
VOTES = Scenario("a vote with a reason that is changed", _votes, OFF)
RESUMED = Scenario(
    "an attempt after a death that left two copies of its post",
    _question,
    EDIT,
    first={Call(SLACK, "chat.postMessage", 1): Action.DIE_AFTER},
    on_first_death=Cell.post_copy,
)
REFUSED = Scenario("a question that Kapa refuses", _refused, always={"projects/*/chat/stream": Action.ERROR_400})
OUT = Scenario("a question while Kapa is away", _out, always={"projects/*/chat/stream": Action.ERROR_500})
EDITED = Scenario("an answered question that is edited", _edited, OFF)
DELETED = Scenario("an answered question that is deleted", _deleted, OFF)
LONG = Scenario("an answer in three messages", _long, EDIT, answer=_many_words)
ALL = (CONVERSATION, DRAFTS, SLOW, WHOLE, VOTES, RESUMED, REFUSED, OUT, LONG, EDITED, DELETED)
