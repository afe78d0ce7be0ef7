"""How the connection to a real homeserver is told to those who watch over the bot."""

from bot.on_matrix.adapter import MOST_AGE_S
from tests.bot.on_matrix.world import Bot, Place

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def test_behaviour_30_a_homeserver_that_is_silent_is_noticed(bot: Bot) -> None:
    vitals = bot.adapter.vitals()
    assert (vitals.is_ready, vitals.trouble(), vitals.most_age_s) == (True, "", 90.0)
    assert vitals.heard_age_s is not None
    assert 0 <= vitals.heard_age_s < 30
    assert bot.adapter._loop.synced_s is not None
    bot.adapter._loop.synced_s -= MOST_AGE_S
    assert "was last heard 9" in bot.adapter.vitals().trouble()


async def test_a_homeserver_that_was_never_heard_is_not_connected(bot: Bot) -> None:
    bot.adapter._loop.synced_s = None
    assert bot.adapter.vitals().trouble().startswith("is not connected yet")


async def test_an_event_that_cannot_be_read_is_counted(chat: Place) -> None:
    assert chat.bot.adapter.vitals().num_unreadable == 0
    sealed = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": "AwgA",
        "device_id": "D",
        "sender_key": "k",
        "session_id": "s",
    }
    await chat.human.send(chat.room_id, sealed, "m.room.encrypted")
    await chat.bot.until(lambda: chat.bot.adapter.vitals().num_unreadable == 1)
