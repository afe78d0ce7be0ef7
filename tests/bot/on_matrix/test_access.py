"""Who may use the bot on Matrix: what the operator has set, and what admins have said since."""

from bot.commands.catalogue import COMMANDS
from bot.on_matrix.calls import read_call
from bot.words import Call
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.world import Place, meet
from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def is_answered(place: Place, witness: Place, number: int) -> bool:
    """Whether a question is. Who asks after it is, so that nobody waits for what never comes."""
    await place.call(f"hello {number}")
    await witness.call(f"a witness {number}")
    await witness.reads(f"You said: a witness {number}")
    await place.bot.quiet()
    return f"You said: hello {number}" in await place.texts()


async def test_behaviour_29_denied_people_and_muted_rooms_are_left_in_silence(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    mallory = await new_human("mallory")
    bot = await new_bot(denied_users=(mallory.user_id,))
    witness = await meet(anna, bot)
    place = await meet(anna, bot)
    await anna.invite(place.room_id, mallory.user_id)
    await mallory.join(place.room_id)
    assert not await is_answered(Place(mallory, bot, place.room_id), witness, 1)
    await mallory.say(place.room_id, "!help")
    assert await is_answered(place, witness, 2)
    assert await place.texts() == ["You said: hello 2"], "nor is anything else said to them"


async def test_behaviour_29_the_switch_for_direct_chats_is_obeyed(new_bot: NewBot, anna: Human) -> None:
    bot = await new_bot(direct_messages=False)
    chat, group = await meet(anna, bot, direct=True), await meet(anna, bot)
    other = "@nobody:localhost"
    await anna.invite(group.room_id, other)
    await anna._until(lambda: other in anna.client.rooms[group.room_id].invited_users, "nobody")
    assert not await is_answered(chat, group, 1)


async def test_behaviour_29_admins_ban_and_lift_bans_in_their_chat_with_the_bot(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    bot = await new_bot(admins=(anna.user_id,))
    boss, chat = await meet(anna, bot, direct=True), await meet(ben, bot, direct=True)
    assert await is_answered(chat, boss, 1)
    await boss.say(f"!admin ban {ben.user_id} 24")
    await boss.reads(f"`{ben.user_id}` is ignored for 24 hours.")
    assert not await is_answered(chat, boss, 2)
    await boss.say(f"!admin unban {ben.user_id}")
    await boss.reads(f"`{ben.user_id}` is heard again.")
    assert await is_answered(chat, boss, 3)
    await boss.say(f"!admin deny {chat.room_id}")
    await boss.reads(f"`{chat.room_id}` may not use the bot any more.")
    assert not await is_answered(chat, boss, 4)


async def test_behaviour_29_what_admins_allow_gets_past_the_lists_of_who_is_allowed(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    bot = await new_bot(admins=(anna.user_id,), allowed_users=(anna.user_id,))
    boss, place = await meet(anna, bot, direct=True), await meet(anna, bot)
    await anna.invite(place.room_id, ben.user_id)
    await ben.join(place.room_id)
    chat = Place(ben, bot, place.room_id)
    assert not await is_answered(chat, boss, 1)
    await boss.say(f"!admin allow {ben.user_id}")
    await boss.reads(f"`{ben.user_id}` may use the bot now, unless the configuration denies it.")
    assert await is_answered(chat, boss, 2)


async def test_behaviour_29_for_others_there_are_no_admin_commands(new_bot: NewBot, anna: Human) -> None:
    bot = await new_bot()
    chat = await meet(anna, bot, direct=True)
    await chat.say("!admin drain")
    await chat.reads("There is no command `admin drain`; `!help` names all commands.")
    assert not bot.core.must_leave.is_set()


def test_behaviour_29_every_command_of_the_catalogue_can_be_typed() -> None:
    for command in COMMANDS:
        line = " ".join([command.name, *(it.choices[0] if it.choices else "x" for it in command.arguments)])
        call = read_call(f"!{line}", "!", is_for_us=False, is_mention=False, is_admin=True)
        assert isinstance(call, Call), line
        assert (call.command, len(call.arguments)) == (command.name, len(command.arguments))
