"""Rooms in which a moderator has the bot answer every message, and reports that admins hear of there."""

from pathlib import Path

import msgspec

from bot.commands.reports import THANKS
from bot.config.platforms import MatrixSettings
from bot.on_matrix.translating import Heard, Translator
from bot.receiving.access import Access
from bot.words import Inbound
from storage.conversations import open_place
from storage.database import Transaction, open_database
from storage.settings import set_setting
from tests.bot.clock import FakeClock
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.test_translating import ANNA, BEN, BOT, message, room
from tests.bot.on_matrix.world import Place, meet
from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)


def always(connection: Transaction) -> None:
    place = open_place(connection, "matrix", "!room:localhost", 0)
    set_setting(connection, "place", place.place_id, "always", True)


async def test_every_message_of_such_a_room_is_for_us_but_no_notice_and_no_call_to_everybody(
    store_path: Path,
) -> None:
    clock = FakeClock()
    access, heard = Access(clock), Heard()
    notice, own, everybody = message("$2", "beep"), message("$3", "mine"), message("$4", "@room look")
    notice["content"]["msgtype"] = "m.notice"
    own["sender"] = BOT
    everybody["content"]["m.mentions"] = {"room": True}
    events = (message("$1", "one"), notice, own, everybody, message("$5", "two"))
    async with open_database(store_path) as store:
        translator = Translator(BOT, MatrixSettings(), "!", store, clock, access)
        await translator.hear(room(ANNA, BEN), events, heard)
        assert heard.events == []
        await store.write(always)
        await access.load(store)
        await translator.hear(room(ANNA, BEN), events, heard)
    inbound = [msgspec.json.decode(event.payload, type=Inbound) for event in heard.events]
    assert [it.text for it in inbound] == ["one", "two"]


async def test_a_moderator_of_a_room_has_every_message_answered(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    bot = await new_bot()
    place = await meet(anna, bot)
    await anna.invite(place.room_id, ben.user_id)
    await ben.join(place.room_id)
    theirs = Place(ben, bot, place.room_id)
    await theirs.say("!settings set always on channel")
    await theirs.reads("Only moderators may set that for all.")
    await place.say("!settings set always on channel")
    await place.reads("always is on now, for this channel.")
    await theirs.say("hello")
    await theirs.reads("You said: hello")
    await place.say("!settings set threads on channel")
    await place.reads("threads can be set only where I open them, on Discord.")


async def test_an_answer_that_is_replied_to_can_be_reported_and_the_admin_is_told_in_their_chat(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    bot = await new_bot(admins=(ben.user_id, "@gone:localhost"))
    boss, place = await meet(ben, bot, direct=True), await meet(anna, bot)
    await place.call("hello")
    await place.reads("You said: hello")
    await bot.quiet()
    await place.say("!report it is rude")
    await place.reads(THANKS)
    await boss.reads(f"Somebody has reported an answer in `matrix:{place.room_id}`: see `admin reports`.")
    await boss.say("!admin reports")
    (shown,) = await boss.until(lambda them: [it for it in them if "it is rude" in it.text])
    assert f"`matrix:{anna.user_id}` reported `matrix:{place.room_id}`" in shown.text
