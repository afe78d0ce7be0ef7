"""Answers that are reported on Discord: by a button, by a command, and told to admins."""

from pathlib import Path

from bot.commands.reports import AGAIN, NOTED, NOTED_AGAIN, NOTHING, THANKS
from storage.reports import last_reports
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import Stage, open_stage
from tests.bot.on_discord.test_access import boss_of, order
from tests.discord_peer import FakeDiscord, Message


async def asked_and_answered(stage: Stage, place: Place) -> Message:
    before = len(place.channel.by(stage.fake.bot))
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    return (await stage.answers(place.channel, before + 1))[-1]


async def test_whoever_sees_an_answer_can_report_it_with_its_button(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    boss = boss_of(fake, place)
    async with open_stage(fake, store_path, admins=(str(boss.id),)) as stage:
        answer = await asked_and_answered(stage, place)
        place.bob.presses(answer, "Report")
        await stage.until(lambda: place.bob.private)
        assert place.bob.private[0].content == THANKS
        await stage.until(lambda: stage.texts(boss.direct))
        (told,) = stage.texts(boss.direct)
        assert f"discord:{place.channel.id}" in told
        place.bob.presses(answer, "Report")
        await stage.until(lambda: len(place.bob.private) == 2)
        assert place.bob.private[1].content == AGAIN
        shown = await order(stage, boss, place.channel, "admin reports")
        assert f"`discord:{place.bob.id}` reported `discord:{place.channel.id}`" in shown
        assert f"message `{answer.id}`" in shown
        assert "hm" not in shown
        assert len(stage.texts(boss.direct)) == 1


async def test_the_command_reports_the_latest_answer_and_does_not_say_that_somebody_knows_where_nobody_does(
    stage: Stage, place: Place
) -> None:
    nothing = place.bob.runs("report", {"reason": "rude"}, channel=place.channel)
    await stage.until(lambda: nothing.messages and not nothing.is_pending)
    assert place.bob.private[-1].content == NOTHING
    await asked_and_answered(stage, place)
    latest = await asked_and_answered(stage, place)
    reported = place.bob.runs("report", {"reason": "it is rude"}, channel=place.channel)
    await stage.until(lambda: reported.messages and not reported.is_pending)
    assert place.bob.private[-1].content == NOTED
    (found,) = await stage.store.read(last_reports, 9)
    assert (found.message_id, found.reason) == (str(latest.id), "it is rude")
    assert found.reporter.external_id == str(place.bob.id)
    reported = place.bob.runs("report", channel=place.channel)
    await stage.until(lambda: reported.messages and not reported.is_pending)
    assert place.bob.private[-1].content == NOTED_AGAIN


async def test_an_admin_whom_nobody_can_write_to_is_no_trouble(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    boss = boss_of(fake, place)
    boss.takes_direct_messages = False
    async with open_stage(fake, store_path, admins=(str(boss.id), "@boss:example.org")) as stage:
        answer = await asked_and_answered(stage, place)
        place.bob.presses(answer, "Report")
        await stage.until(lambda: place.bob.private)
        assert place.bob.private[0].content == THANKS
        assert stage.texts(place.channel) == ["You said: hm"]
        assert len(await stage.store.read(last_reports, 9)) == 1
