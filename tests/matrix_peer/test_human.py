"""People of the tests, in real rooms: what one does the other sees."""

from typing import Any

import pytest

from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def in_a_room(first: Human, second: Human, **options: Any) -> str:
    """A room where both are."""
    room = await first.create_room(second.user_id, **options)
    await second.join(room)
    await first.wait_for_member(room, second.user_id)
    return room


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_two_people_talk(new_human: NewHuman, version: str, encrypted: bool) -> None:
    anna, ben = await new_human("anna", encrypted=encrypted), await new_human("ben", encrypted=encrypted)
    room = await in_a_room(anna, ben, version=version, encrypted=encrypted)
    asked = await anna.say(room, "Who is there?", mentions=[ben.user_id])
    seen = await ben.wait_for_text(room, "Who is there?", by=anna.user_id)
    assert (seen.event_id, seen.is_encrypted) == (asked, encrypted)
    assert seen.content["m.mentions"] == {"user_ids": [ben.user_id]}
    answered = await ben.reply(room, asked, "Me")
    in_thread = await ben.reply_in_thread(room, asked, "and nobody else")
    await ben.edit(room, answered, "It is me")
    await ben.react(room, asked, "👍")
    await anna.until(room, lambda messages: any(message.reactions for message in messages))
    shown = {message.event_id: message for message in anna.messages(room)}
    assert anna.visible_text(room) == ["Who is there?", "It is me", "and nobody else"]
    assert anna.visible_text(room, by=ben.user_id) == ["It is me", "and nobody else"]
    assert (shown[answered].reply_to, shown[in_thread].thread) == (asked, asked)
    assert {message.is_encrypted for message in shown.values()} == {encrypted}
    assert shown[asked].reactions == [(ben.user_id, "👍")]
    await ben.redact(room, in_thread)
    await anna.until(room, lambda messages: any(message.is_redacted for message in messages))
    assert anna.visible_text(room) == ["Who is there?", "It is me"]
    assert anna.unreadable(room) == []


async def test_a_direct_chat_begins_with_an_invitation_and_can_be_left(new_human: NewHuman) -> None:
    anna, ben = await new_human("anna"), await new_human("ben")
    room = await anna.create_direct(ben.user_id)
    await ben.wait_for_invitation(room)
    await ben.join(room)
    await anna.wait_for_member(room, ben.user_id)
    await ben.leave(room)
    await anna.until(room, lambda _: ben.user_id not in anna.client.rooms[room].users)


async def test_what_is_not_there_is_not_seen(new_human: NewHuman) -> None:
    anna = await new_human("anna")
    room = await anna.create_room()
    with pytest.raises(AssertionError, match="no what was looked for"):
        await anna.wait_for_text(room, "nothing", within_s=0.3)


async def test_who_cannot_encrypt_sees_that_there_is_something_to_read(new_human: NewHuman) -> None:
    anna, plain = await new_human("anna", encrypted=True), await new_human("plain")
    room = await in_a_room(anna, plain, encrypted=True)
    sent = await anna.say(room, "for those who have keys")
    await plain.until(room, lambda _: plain.unreadable(room))
    assert plain.unreadable(room) == [sent]
    assert plain.visible_text(room) == []
