"""A first message goes the whole way."""

from tests.rig import ADA, GENERAL, Rig


async def test_question_reply_and_vote_go_the_whole_way(rig: Rig) -> None:
    async with rig.bridge():
        ts = await rig.slack.say(ADA, GENERAL, "How are threads stored?")
        [answer] = await rig.answer(GENERAL, ts)
        assert "stored in Redis" in answer["text"]
        await rig.slack.react(ADA, GENERAL, answer["ts"], "thumbsup")
        await rig.slack.say(ADA, GENERAL, "and how are keys rotated?", thread=ts)
        await rig.answer(GENERAL, ts, 2)
        first, second = rig.kapa.asked
        await rig.kapa.wait_for(lambda: rig.kapa.feedback)
    assert second.thread_id == first.thread_id
    assert [body["reaction"] for body in rig.kapa.feedback.values()] == ["upvote"]
