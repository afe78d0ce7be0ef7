"""Strict clients of another make talk to each other, and to our library once its device is signed."""

from pathlib import Path

from bot.on_matrix.cross_signing import sign_own_device
from tests.matrix_peer.human import NewHuman, open_human
from tests.matrix_peer.signed_only import NewSignedOnly
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def test_two_strict_clients_talk(new_signed_only: NewSignedOnly) -> None:
    anna, ben = await new_signed_only("anna"), await new_signed_only("ben")
    room = await anna.create_room(ben.user_id)
    await ben.join(room)
    await anna.wait_for_member(room, ben.user_id)
    sent = await anna.say(room, "Who is there?")
    seen = await ben.wait_for_text(room, "Who is there?")
    assert (seen["event_id"], seen["sender"], seen["encrypted"]) == (sent, anna.user_id, True)
    await ben.say(room, "Me")
    assert (await anna.wait_for_text(room, "Me"))["sender"] == ben.user_id


async def test_a_device_that_nobody_signed_is_neither_read_nor_let_read(
    new_signed_only: NewSignedOnly, new_human: NewHuman
) -> None:
    strict, unsigned = await new_signed_only("strict"), await new_human("unsigned", encrypted=True)
    room = await strict.create_room(unsigned.user_id)
    await unsigned.join(room)
    await strict.wait_for_member(room, unsigned.user_id)
    hidden = await strict.say(room, "for signed devices alone")
    await unsigned.until(room, lambda _: unsigned.unreadable(room))
    assert unsigned.unreadable(room) == [hidden]
    sent = await unsigned.say(room, "believe me")
    outcome = await strict.outcome(room, sent)
    assert (outcome["text"], outcome["failure"]) == (None, "UNSIGNED_SENDER_DEVICE")


async def test_a_signed_device_of_ours_and_a_strict_client_talk(
    new_signed_only: NewSignedOnly, new_human: NewHuman, tmp_path: Path
) -> None:
    strict, ours = await new_signed_only("strict"), await new_human("ours", encrypted=True)
    await sign_own_device(ours.client, tmp_path / "seeds", "a secret")
    room = await strict.create_room(ours.user_id)
    await ours.join(room)
    await strict.wait_for_member(room, ours.user_id)
    await strict.say(room, "Who is there?")
    seen = await ours.wait_for_text(room, "Who is there?", by=strict.user_id)
    assert seen.is_encrypted
    sent = await ours.reply(room, seen.event_id, "Me")
    outcome = await strict.outcome(room, sent)
    assert (outcome["text"], outcome["failure"]) == ("Me", None)
    assert outcome["relation"] == {"m.in_reply_to": {"event_id": seen.event_id}}


async def test_a_second_device_signed_with_the_same_keys_is_believed_too(
    synapse: Synapse, new_signed_only: NewSignedOnly, new_human: NewHuman, tmp_path: Path
) -> None:
    strict, first = await new_signed_only("strict"), await new_human("ours", encrypted=True)
    seeds_file = tmp_path / "seeds"
    await sign_own_device(first.client, seeds_file, "a secret")
    room = await strict.create_room(first.user_id)
    await first.join(room)
    await strict.wait_for_member(room, first.user_id)
    await strict.say(room, "to the first device")
    async with open_human(synapse.url, first.account, tmp_path / "second") as second:
        await sign_own_device(second.client, seeds_file, "a secret")
        sent = await second.say(room, "from the second device")
        assert (await strict.outcome(room, sent))["text"] == "from the second device"
        await strict.say(room, "to both")
        for ours in (first, second):
            assert (await ours.wait_for_text(room, "to both")).is_encrypted
