"""Reported answers: who, which, why; gone with the answer, and with whoever has reported it."""

from sqlalchemy import Connection, select

from storage.database import Database
from storage.privacy import forget_message, forget_person
from storage.reports import Report, is_answer_at, last_reports, latest_answer, note_report
from storage.schema import report
from storage.transcript import Question, ask
from tests.storage.people import ADA, BOB, KEY, NOON, account_of, say, talk


def reported(connection: Connection) -> tuple[int, int]:
    """Ada was answered, and Bob reports it; returns the place and Bob's account."""
    conversation = talk(connection)
    say(connection, conversation, "a")
    bob = account_of(connection, BOB)
    assert note_report(connection, "a", bob, "", NOON)
    return conversation.place_id, bob


async def test_a_report_names_the_answer_and_who_it_was_and_nothing_that_was_said(store: Database) -> None:
    await store.write(reported)
    (found,) = await store.read(last_reports, 5)
    assert (found.turn_id, found.reporter, found.reason, found.at_ms) == ("a", BOB, "", NOON)
    assert found.place.external_id == "!room:example.org"
    columns = await store.read(lambda c: set(c.execute(select(report)).mappings().one()))
    assert columns == {"turn_id", "account_id", "reason", "at"}


async def test_reporting_again_adds_a_reason_and_takes_none_back(store: Database) -> None:
    _, bob = await store.write(reported)
    assert not await store.write(note_report, "a", bob, "rude", NOON + 1)
    assert not await store.write(note_report, "a", bob, "", NOON + 2)
    found: list[Report] = await store.read(last_reports, 5)
    assert [(each.reason, each.at_ms) for each in found] == [("rude", NOON + 2)]


async def test_a_report_goes_with_the_answer_and_with_its_reporter(store: Database) -> None:
    place_id, bob = await store.write(reported)
    await store.write(forget_message, place_id, "$a")
    assert await store.read(last_reports, 5) == []
    await store.write(lambda c: say(c, talk(c), "b"))
    await store.write(note_report, "b", bob, "rude", NOON)
    await store.write(forget_person, bob, KEY, NOON)
    assert await store.read(last_reports, 5) == []


async def test_the_latest_answer_is_one_that_has_ended_at_that_place(store: Database) -> None:
    def two(connection: Connection) -> tuple[int, int]:
        here, elsewhere = talk(connection), talk(connection, room="!other:example.org")
        say(connection, here, "a")
        say(connection, elsewhere, "b")
        number = here.conversation_id
        ask(connection, Question("open", number, account_of(connection, ADA), "hm", "$open"), NOON)
        return here.place_id, number

    place_id, number = await store.write(two)
    assert await store.read(latest_answer, place_id) == "a"
    assert await store.read(latest_answer, place_id, number) == "a"
    assert await store.read(is_answer_at, place_id, "a")
    assert not await store.read(is_answer_at, place_id, "b")
    assert not await store.read(is_answer_at, place_id, "open")
