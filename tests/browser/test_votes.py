"""Saying whether an answer helped: with a button, with an emoji, and in words."""

from playwright.async_api import Locator, expect

from tests.browser.chat import Chat

QUICK = "What about upgrading?"
THANKS = "Thank you, your feedback was passed on."


def vote(answer: Locator, name: str) -> Locator:
    return answer.get_by_role("button", name=name, exact=True)


def modal(chat: Chat) -> Locator:
    return chat.page.get_by_role("dialog", name="What was wrong?")


async def test_one_reacts_and_takes_it_back(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "React with thumbs up").click()
    await expect(vote(answer, "thumbs up, 1 person")).to_have_attribute("aria-pressed", "true")
    await expect(chat.page.locator("#thread-hint")).not_to_contain_text("👍")
    await vote(answer, "thumbs up, 1 person").click()
    await expect(vote(answer, "React with thumbs up")).to_have_attribute("aria-pressed", "false")


async def test_a_reaction_from_the_picker_has_a_skin_tone(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await chat.pick(answer, "thumbs up", "thumbs up with medium-dark skin tone", tone="medium-dark")
    await expect(vote(answer, "thumbs up with medium-dark skin tone, 1 person")).to_have_text("👍🏾 1")


async def test_others_see_a_reaction_and_add_their_own(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "React with thumbs up").click()
    await expect(vote(answer, "thumbs up, 1 person")).to_be_visible()
    ts = await chat.timestamp_of(answer)
    await chat.page.get_by_label("You are").select_option("Grace Hopper")
    await chat.open_thread(chat.messages.last)
    seen = chat.page.locator(f'#thread > [data-ts="{ts}"]')
    await expect(vote(seen, "thumbs up, 1 person")).to_have_attribute("aria-pressed", "false")
    await vote(seen, "thumbs up, 1 person").click()
    await expect(vote(seen, "thumbs up, 2 people")).to_have_attribute("aria-pressed", "true")


async def test_a_good_answer_is_thanked_for(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "Good answer").click()
    await expect(vote(answer, "Good answer")).to_have_attribute("aria-pressed", "true")
    await expect(chat.whispers).to_contain_text(["Only visible to you"])
    await expect(chat.whispers).to_contain_text([THANKS])
    await expect(modal(chat)).to_be_hidden()


async def test_a_bad_answer_is_explained_in_words(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "Bad answer").click()
    await modal(chat).get_by_label("is incorrect").check()
    await modal(chat).get_by_label("In your own words").fill("It names <b>another</b> version.")
    await modal(chat).get_by_role("button", name="Send").click()
    await expect(modal(chat)).to_be_hidden()
    await expect(vote(answer, "Bad answer")).to_have_attribute("aria-pressed", "true")
    await expect(chat.whispers.last).to_contain_text(THANKS)


async def test_a_bad_answer_need_not_be_explained(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "Bad answer").click()
    await modal(chat).get_by_role("button", name="Skip").click()
    await expect(modal(chat)).to_be_hidden()
    await expect(vote(answer, "Bad answer")).to_have_attribute("aria-pressed", "true")


async def test_one_changes_one_s_mind(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "Good answer").click()
    await expect(vote(answer, "Good answer")).to_have_attribute("aria-pressed", "true")
    await vote(answer, "Bad answer").click()
    await expect(modal(chat)).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await expect(modal(chat)).to_be_hidden()
    await expect(vote(answer, "Bad answer")).to_have_attribute("aria-pressed", "true")
    await expect(vote(answer, "Good answer")).to_have_attribute("aria-pressed", "false")


async def test_a_downvote_by_emoji_is_offered_to_be_explained(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "React with thumbs down").click()
    offer = chat.whispers.filter(has=chat.page.get_by_role("button", name="Say what was wrong"))
    await offer.get_by_role("button", name="Say what was wrong").click()
    await modal(chat).get_by_label("is about something else").check()
    await modal(chat).get_by_role("button", name="Send").click()
    await expect(modal(chat)).to_be_hidden()


async def test_a_reload_shows_the_same(chat: Chat) -> None:
    answer = await chat.ask(QUICK)
    await vote(answer, "Good answer").click()
    await vote(answer, "React with thumbs up").click()
    await expect(vote(answer, "thumbs up, 1 person")).to_be_visible()
    await expect(chat.whispers).to_contain_text([THANKS])
    before = await chat.page.locator("main, #pane").all_inner_texts()
    await chat.reload()
    assert await chat.page.locator("main, #pane").all_inner_texts() == before
    await expect(vote(chat.answers.last, "Good answer")).to_have_attribute("aria-pressed", "true")
    await expect(vote(chat.answers.last, "thumbs up, 1 person")).to_have_attribute("aria-pressed", "true")
