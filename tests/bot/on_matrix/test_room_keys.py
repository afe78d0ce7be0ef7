"""Keys on their way to people's devices: none is lost, and what is no key harms nobody else."""

from typing import Any

import pytest

from bot.on_matrix.room_keys import AT_ONCE
from bot.on_matrix.wire import Wire
from tests.bot.on_matrix.test_deliveries import Answer, Trouble, once
from tests.bot.on_matrix.test_encrypted_rooms import account, sealed_bot, sealed_chat
from tests.bot.on_matrix.world import Bot, Place, meet
from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)

__all__ = ("account", "sealed_bot", "sealed_chat")

GATEWAY = Answer(502, b"")


def is_room_key(path: str, body: bytes) -> bool:
    return "/sendToDevice/m.room.encrypted/" in path


async def test_behaviour_16_a_key_that_the_homeserver_did_not_take_is_sent_again(sealed_chat: Place) -> None:
    trouble, first = Trouble(sealed_chat.bot), once(is_room_key)
    trouble.instead = lambda path, body: GATEWAY if first(path, body) else None
    await sealed_chat.say("one")
    await sealed_chat.reads("You said: one")
    assert sealed_chat.human.unreadable(sealed_chat.room_id) == []
    assert sum(is_room_key(*asked) for asked in trouble.asked) >= 2


async def publish(human: Human, device: dict[str, Any]) -> None:
    """Have the homeserver show a device of somebody as it may not be; it does not look."""
    own = {"user_id": human.user_id, "device_id": human.client.device_id, "algorithms": []}
    await Wire(human.client).ask("POST", "/keys/upload", {"device_keys": own | device})


@pytest.mark.parametrize(
    ("keys", "signature"),
    [
        ({}, "x"),
        ({"ed25519": "x", "curve25519": "x"}, "x"),
        ({"ed25519": "A" * 43, "curve25519": "A" * 43}, "A" * 86),
    ],
)
async def test_a_device_whose_keys_are_none_keeps_nobody_from_being_answered(
    sealed_bot: Bot, new_human: NewHuman, keys: dict[str, str], signature: str
) -> None:
    eve = await new_human("eve")
    named = {f"{name}:{eve.client.device_id}": key for name, key in keys.items()}
    signed = {eve.user_id: {f"ed25519:{eve.client.device_id}": signature}}
    await publish(eve, {"keys": named, "signatures": signed})
    place = await meet(eve, sealed_bot, encrypted=True)
    await place.call("in plain text, since she cannot do otherwise")
    await eve._until(lambda: len(eve.unreadable(place.room_id)) == 1, "the bot's answer")


async def test_a_one_time_key_that_is_none_keeps_nobody_from_being_answered(
    sealed_bot: Bot, new_human: NewHuman
) -> None:
    eve, anna = await new_human("eve", encrypted=True), await new_human("anna", encrypted=True)
    room_id = await anna.create_room(eve.user_id, encrypted=True)
    await eve.join(room_id)
    await anna.wait_for_member(room_id, eve.user_id)
    await anna.say(room_id, "so that anna has a session with her")
    await use_up_keys(eve, anna)
    key: dict[str, Any] = {"key": "no key"}
    name = f"ed25519:{eve.client.device_id}"
    signed = key | {"signatures": {eve.user_id: {name: eve.client.olm.sign_json(key)}}}
    await Wire(eve.client).ask("POST", "/keys/upload", {"one_time_keys": {"signed_curve25519:AAA": signed}})
    await anna.invite(room_id, sealed_bot.user_id)
    await anna.wait_for_member(room_id, sealed_bot.user_id)
    place = Place(anna, sealed_bot, room_id)
    await place.call("one")
    assert (await place.reads("You said: one")).is_encrypted


async def use_up_keys(human: Human, by: Human) -> None:
    wanted = {"one_time_keys": {human.user_id: {human.client.device_id: "signed_curve25519"}}}
    while (await Wire(by.client).ask("POST", "/keys/claim", wanted))["one_time_keys"]:
        pass


async def test_whoever_comes_reads_what_is_said_from_then_on_and_whoever_left_does_not(
    sealed_bot: Bot, new_human: NewHuman
) -> None:
    anna, ben = await new_human("anna", encrypted=True), await new_human("ben", encrypted=True)
    place = await meet(anna, sealed_bot, encrypted=True)
    trouble = Trouble(sealed_bot)
    await place.call("one")
    await place.reads("You said: one")
    await anna.invite(place.room_id, ben.user_id)
    await ben.join(place.room_id)
    await anna.wait_for_member(place.room_id, ben.user_id)
    await place.call("two")
    await ben.wait_for_text(place.room_id, "You said: two", sealed_bot.user_id)
    num_keys = sum(is_room_key(*asked) for asked in trouble.asked)
    await ben.leave(place.room_id)
    await anna._until(lambda: ben.user_id not in anna.client.rooms[place.room_id].users, "Ben gone")
    await place.call("three")
    await place.reads("You said: three")
    later = [body for path, body in trouble.asked if is_room_key(path, body)][num_keys:]
    assert later, "the room has a new key"
    assert not any(ben.user_id.encode() in body for body in later)


async def test_many_devices_get_their_keys_in_portions(sealed_bot: Bot, new_human: NewHuman) -> None:
    anna = await new_human("anna", encrypted=True)
    others = [await new_human(f"other{number}", encrypted=True) for number in range(AT_ONCE + 2)]
    place = await meet(anna, sealed_bot, encrypted=True)
    for human in others:
        await anna.invite(place.room_id, human.user_id)
        await human.join(place.room_id)
    await anna.wait_for_member(place.room_id, others[-1].user_id)
    await place.call("one")
    for human in (others[0], others[-1]):
        assert (await human.wait_for_text(place.room_id, "You said: one", sealed_bot.user_id)).is_encrypted
