"""What became current last is current, also after the clock was set back."""

from storage.conversations import (
    begin_conversation,
    current_conversation,
    make_current,
    note_told,
    open_place,
    was_told,
)
from storage.database import Database, Transaction
from tests.storage.people import ADA, account_of

NOON = 1_700_000_000_000
EARLIER = NOON - 3_600_000


def current(connection: Transaction, place_id: int) -> int:
    conversation = current_conversation(connection, place_id)
    assert conversation is not None
    return conversation.conversation_id


async def test_a_conversation_that_begins_after_the_clock_was_set_back_is_the_current_one(
    store: Database,
) -> None:
    def talk(connection: Transaction) -> None:
        place_id = open_place(connection, "fake", "dm", NOON).place_id
        owner = account_of(connection, ADA)
        numbers = [
            begin_conversation(connection, place_id, owner, at).conversation_id
            for at in (NOON, EARLIER, EARLIER + 1)
        ]
        assert current(connection, place_id) == numbers[2]
        for number in numbers:
            make_current(connection, number, EARLIER)
            assert current(connection, place_id) == number

    await store.write(talk)


async def test_conversations_of_other_places_do_not_count(store: Database) -> None:
    def talk(connection: Transaction) -> None:
        owner = account_of(connection, ADA)
        here, there = (open_place(connection, "fake", name, NOON).place_id for name in ("here", "there"))
        first = begin_conversation(connection, here, owner, EARLIER).conversation_id
        begin_conversation(connection, there, owner, NOON)
        make_current(connection, first, EARLIER)
        assert current(connection, here) == first

    await store.write(talk)


async def test_a_place_was_told_once_that_is_noted(store: Database) -> None:
    def tell(connection: Transaction) -> list[bool]:
        before = was_told(connection, "fake", "dm")
        place_id = open_place(connection, "fake", "dm", NOON).place_id
        opened = was_told(connection, "fake", "dm")
        note_told(connection, place_id, NOON)
        return [before, opened, was_told(connection, "fake", "dm"), was_told(connection, "other", "dm")]

    assert await store.write(tell) == [False, False, True, False]
