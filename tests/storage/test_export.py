"""What forgetting deletes is what an export shows: table by table, whatever tables there are."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from storage.access import Deed, name_of, note_deed, set_rule
from storage.conversations import Conversation, begin_conversation
from storage.database import Database
from storage.inbox import withdraw_event
from storage.messages import is_being_answered, is_known, turns_of
from storage.privacy import export_person, forget_message, forget_person
from storage.reports import note_report
from storage.schema import inbox, joined_message, metadata, turn
from storage.transcript import Question, ask, extend
from tests.storage.people import ADA, BOB, KEY, NOON, account_of, say, talk
from tests.storage.test_privacy import SECRET, live_fully

Rows = list[dict[str, Any]]
Exported = Mapping[str, Any]


def settings_in(exported: Exported) -> Rows:
    """Settings, one by one as the table has them."""
    of_conversations = [(each["id"], "conversation", each["settings"]) for each in exported["conversations"]]
    own = [(exported["account"]["id"], "account", exported["settings"])]
    return [
        {"scope": scope, "scope_id": number, "key": key, "value": json.dumps(value)}
        for number, scope, settings in (*own, *of_conversations)
        for key, value in settings.items()
    ]


SECTIONS: dict[str, Callable[[Exported], Rows]] = {
    "account": lambda exported: [exported["account"]],
    "ledger": lambda exported: exported["ledger"],
    "hold": lambda exported: exported["holds"],
    "conversation": lambda exported: exported["conversations"],
    "turn": lambda exported: exported["turns"],
    "joined_message": lambda exported: exported["joined_messages"],
    "report": lambda exported: exported["reports"],
    "delivery": lambda exported: exported["messages"],
    "live_session": lambda exported: exported["sessions"],
    "inbox": lambda exported: exported["events"],
    "setting": settings_in,
    "access_rule": lambda exported: [{"is_allowed": exported["admins"]["is_allowed"]}],
    "audit": lambda exported: [*exported["admins"]["done_to_them"], *exported["admins"]["done_by_them"]],
}
"""Where the export shows what forgetting takes out of a table."""
NOT_OF_A_PERSON = {
    "place": "many talk there; an export names those where somebody has talked",
    "forgotten": "what forgetting leaves",
    "marker": "how far we have read",
}
NOT_SHOWN = {
    ("turn", "prompt_ids"): "says what the prompt says",
    ("turn", "answer_ids"): "says what the answer says",
    ("live_session", "ids"): "says what the turns say",
    ("live_session", "ticket"): "a key to servers",
    ("access_rule", "platform"): "of the account",
    ("access_rule", "name"): "of the account",
    ("access_rule", "at"): "nothing of theirs",
    ("audit", "id"): "nothing of theirs",
    ("audit", "actor"): "somebody else, or of the account",
    ("audit", "target"): "of the account, or somebody else",
}


def live_very_fully(connection: Connection) -> int:
    """Something in every table that can know of somebody; returns the account."""
    ada = live_fully(connection)
    connection.execute(joined_message.insert().values(turn_id=f"{SECRET}-1", event_id=f"joined {SECRET}"))
    note_report(connection, f"{SECRET}-1", ada, f"not {SECRET}", NOON)
    set_rule(connection, ADA, is_allowed=True, key=KEY, now_ms=NOON)
    note_deed(connection, Deed("console", "grant", name_of(ADA), "5"), NOON)
    return ada


def rows_of(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Everything."""
    return {
        table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
        for table in metadata.sorted_tables
    }


def plain(value: object) -> object:
    """A value as JSON has it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def is_in(row: dict[str, Any], table: str, shown: Rows) -> bool:
    wanted = {name: plain(value) for name, value in row.items() if (table, name) not in NOT_SHOWN}
    return any(all(one.get(name, ...) == value for name, value in wanted.items()) for one in shown)


def test_for_every_table_it_was_decided_whether_it_knows_of_people() -> None:
    assert set(SECTIONS) | set(NOT_OF_A_PERSON) == {table.name for table in metadata.sorted_tables}


async def test_behaviour_28_whatever_forgetting_takes_out_of_any_table_is_in_the_export(
    store: Database,
) -> None:
    ada = await store.write(live_very_fully)
    exported = json.loads(json.dumps(await store.read(export_person, ada)))
    before = await store.read(rows_of)
    await store.write(forget_person, ada, KEY, NOON)
    after = await store.read(rows_of)
    gone = {name: [row for row in rows if row not in after[name]] for name, rows in before.items()}
    assert {name for name, rows in gone.items() if rows} == set(SECTIONS)
    missing = {
        name: row
        for name, rows in gone.items()
        for row in rows
        if not is_in(row, name, SECTIONS[name](exported))
    }
    assert missing == {}


async def test_an_export_names_where_somebody_has_talked_and_nobody_else(store: Database) -> None:
    def two(connection: Connection) -> int:
        say(connection, talk(connection, room="!ours:example.org"), "a")
        say(connection, talk(connection, BOB, room="!bobs:example.org"), "b", person=BOB)
        return account_of(connection, ADA)

    exported = await store.read(export_person, await store.write(two))
    assert [each["external_id"] for each in exported["places"]] == ["!ours:example.org"]
    assert "bob" not in json.dumps(exported)


# --- joined messages --------------------------------------------------------------------------------------


def joined(connection: Connection) -> Conversation:
    """A question to which a message was added, and another try of it."""
    conversation = talk(connection)
    ada = account_of(connection, ADA)
    ask(connection, Question("a", conversation.conversation_id, ada, "one", "$a"), NOON)
    assert extend(connection, "a", "one\ntwo", "$joined")
    connection.execute(turn.update().values(state="done"))
    again = Question("again", conversation.conversation_id, ada, "one\ntwo", "$a")
    ask(connection, again, NOON + 1)
    connection.execute(turn.update().values(state="done"))
    say(connection, conversation, "b")
    return conversation


async def test_a_message_that_was_added_is_known_and_takes_its_question_with_all_tries(
    store: Database,
) -> None:
    conversation = await store.write(joined)
    place_id = conversation.place_id
    assert await store.read(is_known, "matrix", "!room:example.org", "$joined")
    assert not await store.read(is_known, "matrix", "!other:example.org", "$joined")
    assert not await store.read(is_known, "discord", "!room:example.org", "$a")
    assert await store.read(turns_of, place_id, "$joined") == ["a", "again"]
    assert not await store.read(is_being_answered, place_id, "$joined")
    await store.write(lambda c: c.execute(turn.update().where(turn.c.id == "again").values(state="queued")))
    assert await store.read(is_being_answered, place_id, "$joined")
    await store.write(lambda c: c.execute(turn.update().values(state="done")))
    await store.write(forget_message, place_id, "$joined")
    assert await store.read(lambda c: list(c.scalars(select(turn.c.id)))) == ["b"]
    assert await store.read(lambda c: c.execute(select(joined_message)).all()) == []


async def test_a_question_that_is_being_answered_takes_no_addition_too_late(store: Database) -> None:
    await store.write(joined)
    assert not await store.write(extend, "a", "one\ntwo\nthree", "$late")
    assert not await store.read(is_known, "matrix", "!room:example.org", "$late")


async def test_an_event_that_was_withdrawn_waits_no_more(store: Database) -> None:
    await store.write(live_fully)
    await store.write(withdraw_event, "discord", f"${SECRET}")
    assert await store.read(lambda c: c.scalar(select(inbox.c.payload))) is not None
    await store.write(withdraw_event, "matrix", f"${SECRET}")
    assert await store.read(lambda c: c.scalar(select(inbox.c.payload))) is None


async def test_a_fork_elsewhere_is_not_asked_by_the_same_message(store: Database) -> None:
    def forked(connection: Connection) -> tuple[int, int]:
        first = talk(connection)
        say(connection, first, "a")
        other = begin_conversation(connection, first.place_id, account_of(connection, BOB), NOON, after="a")
        say(connection, other, "b", person=BOB)
        return first.place_id, other.conversation_id

    place_id, _ = await store.write(forked)
    assert await store.read(turns_of, place_id, "$a") == ["a"]
