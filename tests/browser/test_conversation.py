"""Asking, carrying on, editing and deleting, as a person does it in a browser."""

from playwright.async_api import expect

from tests.browser.chat import Chat

QUICK = "What about upgrading?"


async def test_a_question_is_answered_in_its_thread(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await expect(answer).to_contain_text("The documentation covers this under")
    await expect(answer).to_contain_text("Sources")
    await expect(answer.get_by_role("link").first).to_be_visible()
    feedback = answer.get_by_role("group", name="Feedback")
    await expect(feedback.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")
    await expect(feedback.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "false")
    await expect(chat.messages.last).to_contain_text("1 reply")


async def test_a_reply_in_the_thread_carries_on(chat: Chat) -> None:
    await chat.ask(QUICK)
    await expect(chat.page.locator("#thread-hint")).to_contain_text("Reply in the thread")
    answer = await chat.follow_up("And what about Redis?")
    await expect(answer).to_contain_text("Redis")
    await expect(chat.page.locator("#thread-hint")).not_to_contain_text("Reply in the thread")
    await expect(chat.messages.last.get_by_role("button", name="3 replies")).to_be_visible()


async def test_an_edited_question_has_its_answer_edited(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    ts = await chat.timestamp_of(answer)
    await chat.edit(chat.messages.last, "xyzzy")
    await expect(chat.answers).to_contain_text("I could not find anything about that")
    await expect(chat.thread.first).to_contain_text("(edited)")
    assert await chat.timestamp_of(await chat.answer()) == ts


async def test_a_deleted_question_takes_its_answer_along(chat: Chat) -> None:
    await chat.ask(QUICK)
    question = chat.messages.last
    ts = await chat.timestamp_of(question)
    await chat.delete(question)
    await expect(chat.page.locator(f'[data-ts="{ts}"]')).to_have_count(0)
    await expect(chat.page.locator("#pane")).to_be_hidden()
