"""What an answer shows: its sources, its certainty, long and odd text, and nothing that is not for everyone."""

import re
from typing import Any

import pytest
from markdown_it import MarkdownIt
from redis.asyncio import Redis

from bridge.messages import Messages
from bridge.playground.kapa import Asked
from bridge.playground.knowledge import Reply, Section
from bridge.playground.slack import SHARED, STRANGER
from tests.rig import ADA, GENERAL, Rig, hurry, markdown, settled

SAYS = Messages()
CODE = {
    "python": 'def greet(name: str) -> str:\n    return f"Hi {name}"',
    "go": "func Greet(name string) string {\n\treturn name\n}",
    "rust": 'fn greet(name: &str) -> String {\n    format!("Hi {name}")\n}',
    "typescript": "const greet = (name: string) => `Hi ${name}`;",
    "bash": 'for f in *.md; do\n  echo "$f" | wc -c\ndone',
}
RICH = "\n\n".join(
    [
        "# Install",
        "Take **care** of _this_, see [the guide](https://docs.example.com/guide).",
        "- one\n  - two\n    - three\n      1. four\n- five",
        "| name | value |\n|---|---|\n| `a` | 1 |\n| `b` | 2 |",
        *(f"```{language}\n{code}\n```" for language, code in CODE.items()),
        "> quoted\n> twice",
    ]
)
PERSIAN = "می\u200cخواهم بدانم: این چطور کار می\u200cکند؟ שלום עולם"


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def section(page: str, title: str, url: str, *, is_internal: bool = False) -> Section:
    return Section(page=page, title=title, url=url, text="text", is_internal=is_internal)


async def shown(
    rig: Rig, redis: Redis, answer: str | Reply, channel: str = GENERAL, user: str = ADA
) -> list[dict[str, Any]]:
    rig.kapa.answer_with(answer)
    ts = await rig.slack.say(user, channel, "How?")
    await rig.answer(channel, ts, within=20)
    await settled(rig, redis)
    assert not rig.slack.rate_limited
    return rig.replies(channel, ts)


def visible(text: str) -> str:
    """Give what people see of a Markdown text, without white space."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    words = [
        "".join(child.content for child in token.children) if token.children is not None else token.content
        for token in tokens
    ]
    return "".join("".join(words).split())


def sources(message: dict[str, Any]) -> list[str]:
    texts = [block["elements"][0]["text"] for block in message["blocks"] if block["type"] == "context"]
    return texts[0].split("\n")[1:] if texts else []


@pytest.mark.parametrize("streaming", ["auto", "edit", "off"])
async def test_a_rich_answer_is_shown_as_it_is(rig: Rig, redis: Redis, streaming: str) -> None:
    async with rig.bridge(bridge_streaming=streaming):
        [answer] = await shown(rig, redis, RICH)
        assert markdown(answer) == RICH
        [answer] = await shown(rig, redis, PERSIAN)
        assert markdown(answer) == PERSIAN
        [answer] = await shown(rig, redis, "Family 👩‍👩‍👧 and flag 🇩🇪 ok")
        assert markdown(answer) == "Family 👩‍👩‍👧 and flag 🇩🇪 ok"


@pytest.mark.parametrize("streaming", ["auto", "off"])
async def test_thirty_thousand_characters_lose_no_word_and_every_message_stands_by_itself(
    rig: Rig, redis: Redis, streaming: str
) -> None:
    text = "\n\n".join(f"## Chapter {number}\n\n{RICH}" for number in range(30_000 // len(RICH) + 1))
    async with rig.bridge(bridge_streaming=streaming):
        parts = await shown(rig, redis, text)
    texts = [markdown(part) for part in parts]
    assert 3 <= len(parts) <= 5
    assert "".join(map(visible, texts)) == visible(text)
    for one in texts:
        assert len(one) <= 11_500
        assert len(re.findall(r"^```", one, re.MULTILINE)) % 2 == 0
    kinds = [[block["type"] for block in part["blocks"]] for part in parts]
    assert kinds == [["markdown"]] * (len(parts) - 1) + [["markdown", "context_actions"]]


async def test_sources_are_numbered_as_they_are_cited_and_each_page_once(rig: Rig, redis: Redis) -> None:
    found = (
        section("Guide", "Linux", "https://d/guide"),
        section("FAQ", "FAQ", "https://d/faq/"),
        section("Guide", "Mac", "https://d/guide#"),
        section("Other", "Other", "https://d/other"),
    )
    text = "See [FAQ](https://d/faq) and the [guide](https://d/guide#mac)."
    async with rig.bridge():
        [answer] = await shown(rig, redis, Reply(text, found))
        assert sources(answer) == ["1. <https://d/faq/|FAQ>", "2. <https://d/guide|Guide: Linux>"]
        [answer] = await shown(rig, redis, Reply("Nothing cited.", found))
        assert [line.partition("|")[2] for line in sources(answer)] == ["Guide: Linux>", "FAQ>", "Other>"]


@pytest.mark.parametrize("streaming", ["auto", "off"])
async def test_internal_pages_do_not_show_where_another_company_reads(rig: Rig, redis: Redis, streaming: str) -> None:
    found = (section("Open", "Open", "https://d/open"), section("Wiki", "Wiki", "https://wiki/x", is_internal=True))
    async with rig.bridge(bridge_streaming=streaming):
        for user in (ADA, STRANGER.id):
            [answer] = await shown(rig, redis, Reply("Text.", found), SHARED, user)
            assert sources(answer) == ["1. <https://d/open|Open>"]
        [answer] = await shown(rig, redis, Reply("Text.", found))
        assert len(sources(answer)) == 2
        # Where only an internal page is cited, the others are not shown in its place.
        [answer] = await shown(rig, redis, Reply("See [it](https://wiki/x).", found), SHARED)
        assert sources(answer) == []
        # Nothing left to show is no heading either.
        [answer] = await shown(rig, redis, Reply("Text.", found[1:]), SHARED)
        assert [block["type"] for block in answer["blocks"]] == ["markdown", "context_actions"]


@pytest.mark.parametrize("streaming", ["auto", "edit", "off"])
async def test_an_uncertain_answer_stays_and_says_so(rig: Rig, redis: Redis, streaming: str) -> None:
    async with rig.bridge(bridge_streaming=streaming):
        [answer] = await shown(rig, redis, Reply("Perhaps so, perhaps not at all.", (), is_uncertain=True))
    assert markdown(answer) == f"Perhaps so, perhaps not at all.\n\n{SAYS.uncertain}"
    assert answer["blocks"][-1]["type"] == "context_actions"


@pytest.mark.parametrize("text", ["", " \n ", "\N{ZERO WIDTH SPACE}\N{WORD JOINER}"])
async def test_nothing_found_is_said(rig: Rig, redis: Redis, text: str) -> None:
    async with rig.bridge():
        [answer] = await shown(rig, redis, text)
    assert markdown(answer) == SAYS.nothing_found


HOSTILE = [
    "Hello <!channel>, <!here|here>, <@U0ADA> and <#C0GENERAL|general>",
    "Log in at [https://bank.example.com](https://evil.example.net/x)",
    "Log in at <https://evil.example.net|https://bank.example.com>",
    "[click](javascript:alert) and ![x](data:text/html,x)",
    "Pass\u202eword\u202c and zero\u200bwidth \x1b[31mred\x00",
]


@pytest.mark.parametrize("streaming", ["auto", "edit", "off"])
@pytest.mark.parametrize("text", HOSTILE)
async def test_nothing_dangerous_is_ever_sent(rig: Rig, redis: Redis, streaming: str, text: str) -> None:
    async with rig.bridge(bridge_streaming=streaming):
        rig.kapa.hold(after_pieces=3)
        rig.kapa.answer_with(f"{text} and so on, one two three.")
        ts = await rig.slack.say(ADA, GENERAL, "How?")
        await rig.kapa.wait_for(lambda: rig.kapa.held, 10)
        if streaming != "off":
            await rig.slack.wait_for(lambda: rig.replies(GENERAL, ts), 10)
        rig.kapa.release()
        await rig.answer(GENERAL, ts)
        await settled(rig, redis)
        [answer] = rig.replies(GENERAL, ts)
    sent = [call.args for call in rig.slack.calls if call.method.startswith("chat.")]
    for text in [str(args.get("markdown_text", "")) + markdown({"text": "", **args}) for args in sent] + [
        markdown(answer)
    ]:
        assert not re.search(r"<[!@#](?!\N{WORD JOINER})\w|<https?://[^>\s]*\|", text)
        assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202a-\u202e]", text)
    links = [
        token.attrs.get("href") or token.attrs.get("src")
        for block in MarkdownIt("commonmark").parse(markdown(answer))
        for token in block.children or ()
        if token.type in {"link_open", "image"}
    ]
    assert links == []


async def test_a_question_s_answer_is_kapa_s_own_words(rig: Rig, redis: Redis) -> None:
    def echo(asked: Asked) -> str:
        return f"{asked.query} <!channel>"

    async with rig.bridge(bridge_streaming="off"):
        rig.kapa.answer_with(echo)
        _, answer = await rig.ask(ADA, GENERAL, "Who is &lt;!here&gt;?")
        await settled(rig, redis)
    assert [asked.query for asked in rig.kapa.asked] == ["Who is <!here>?"]
    assert "<!here>" not in markdown(answer)
    assert "<" not in answer["text"]
