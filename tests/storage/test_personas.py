"""Which instructions nobody follows any more: not those that somebody else has word for word."""

from sqlalchemy import Connection

from storage.conversations import Conversation, begin_conversation, set_persona
from storage.database import Database
from storage.personas import unused_personas
from storage.privacy import Deleted, forget_here, forget_person
from tests.storage.people import ADA, BOB, KEY, NOON, account_of, say, talk

PIRATE, POET = "You are a pirate.", "You are a poet."


def told(connection: Connection, persona: str, person: object = ADA, room: str = "!ada") -> Conversation:
    """A new conversation of somebody's, under instructions."""
    conversation = talk(connection, person, room)  # type: ignore[arg-type]
    set_persona(connection, conversation.conversation_id, persona)
    return conversation


async def test_those_of_a_person_who_is_forgotten_are_not_used_any_more(store: Database) -> None:
    def forgotten(connection: Connection) -> Deleted:
        told(connection, POET)  # and left for the next one
        told(connection, PIRATE)
        return forget_person(connection, account_of(connection, ADA), KEY, NOON)

    assert (await store.write(forgotten)).personas == {PIRATE, POET}


async def test_those_that_somebody_else_has_word_for_word_are_used(store: Database) -> None:
    def forgotten(connection: Connection) -> Deleted:
        told(connection, PIRATE, BOB, "!bob")
        told(connection, PIRATE)
        told(connection, POET)
        return forget_person(connection, account_of(connection, ADA), KEY, NOON)

    assert (await store.write(forgotten)).personas == {POET}


async def test_those_of_a_conversation_in_a_channel_are_used_though_others_began_there(
    store: Database,
) -> None:
    def unused(connection: Connection) -> set[str]:
        place, bob = talk(connection, BOB, "!room").place_id, account_of(connection, BOB)
        first = begin_conversation(connection, place, bob, NOON, root="$1")
        set_persona(connection, first.conversation_id, PIRATE)
        begin_conversation(connection, place, bob, NOON + 1, root="$2")
        return unused_personas(connection, {PIRATE})

    assert await store.write(unused) == set()


async def test_those_that_a_place_has_left_for_another_conversation_are_not_used(store: Database) -> None:
    def unused(connection: Connection) -> tuple[set[str], set[str]]:
        told(connection, PIRATE)
        before = unused_personas(connection, {PIRATE})
        talk(connection, room="!ada")
        return before, unused_personas(connection, {PIRATE})

    assert await store.write(unused) == (set(), {PIRATE})


async def test_with_the_last_question_of_a_conversation_its_instructions_go(store: Database) -> None:
    def forgotten(connection: Connection) -> tuple[set[str], set[str]]:
        shared, own = told(connection, POET, room="!room"), told(connection, PIRATE)
        say(connection, shared, "a1")
        say(connection, shared, "b1", person=BOB)
        say(connection, own, "a2")
        ada = account_of(connection, ADA)
        found = [forget_here(connection, ada, each.conversation_id) for each in (shared, own)]
        return found[0].personas, found[1].personas

    assert await store.write(forgotten) == (set(), {PIRATE})
