"""Rooms that the bot has to leave while it writes there."""

from tests.bot.on_matrix.test_commands import long_answer
from tests.bot.on_matrix.test_deliveries import Trouble, is_message
from tests.bot.on_matrix.world import Place, meet

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def assert_ended(place: Place, num_turns: int, trouble: Trouble) -> None:
    """What ran and waited there has ended soon, nothing more is said, and elsewhere the bot answers."""
    bot = place.bot
    await bot.until(lambda: bot.adapter.rooms.get(place.room_id) is None)
    trouble.asked.clear()
    await bot.quiet(within_s=5.0)
    said = await bot.turns()
    assert [each.state for each in said] == ["stopped"] * num_turns
    assert all(len(each.progress.answer) < len("word " * 700) for each in said)
    assert sum(is_message(*asked) for asked in trouble.asked) <= 1
    bot.brain.answer = lambda prompt: f"You said: {prompt}"
    elsewhere = await meet(place.human, bot, direct=True)
    await elsewhere.say("and here?")
    await elsewhere.reads("You said: and here?")


async def test_what_is_written_and_waits_in_a_room_that_the_bot_is_thrown_out_of_ends(group: Place) -> None:
    trouble = Trouble(group.bot)
    await long_answer(group)
    await group.call("and then?")
    await group.bot.until(lambda: group.bot.core.num_waiting == 1)
    await group.human._ask(group.human.client.room_kick(group.room_id, group.bot.user_id))
    await assert_ended(group, 2, trouble)


async def test_what_is_written_in_a_room_that_the_bot_leaves_because_nobody_is_there_ends(
    chat: Place,
) -> None:
    trouble = Trouble(chat.bot)
    await long_answer(chat)
    await chat.human.leave(chat.room_id)
    await assert_ended(chat, 1, trouble)
