"""What is kept of people: shown to them, forgotten when they ask, and gone when it is old."""

import json
from collections.abc import Iterator

from sqlalchemy import Connection, select

from storage.amounts import DAY_MS
from storage.conversations import (
    Conversation,
    begin_conversation,
    get_conversation,
    move_head,
    set_persona,
)
from storage.database import Database
from storage.deliveries import Delivery, intend, note_shown
from storage.inbox import Event, dispose, receive, waiting
from storage.ledger import Turn, check, reserve, standing
from storage.live_sessions import LiveSession, keep_session, kept_session
from storage.privacy import (
    Deleted,
    export_person,
    forget_here,
    forget_message,
    forget_person,
    purge_transcripts,
)
from storage.schema import account, forgotten, metadata, turn
from storage.settings import reset_settings, set_setting, settings_of
from storage.transcript import Progress, Question, ask, end, get_turn, path_to, start
from tests.storage.people import ADA, BOB, KEY, NOON, RATES, account_of, say, talk

SECRET = "ADASECRET"


def live_fully(connection: Connection) -> int:
    """Everything that the store can keep of somebody; returns the account."""
    ada = account_of(connection, ADA)
    conversation = talk(connection)
    number = conversation.conversation_id
    set_persona(connection, number, f"persona {SECRET}")
    set_setting(connection, "account", ada, "persona", SECRET)
    set_setting(connection, "conversation", number, "persona", SECRET)
    say(connection, conversation, f"{SECRET}-1")
    say(connection, conversation, f"{SECRET}-2")
    intend(connection, Delivery(f"{SECRET}-1", 0, conversation.place_id, f"key {SECRET}"), NOON)
    note_shown(connection, f"{SECRET}-1", 0, f"${SECRET}", NOON)
    keep_session(connection, LiveSession(number, "f", SECRET.encode(), [9], NOON))
    reserve(connection, ada, Turn(f"{SECRET}-3", 0, 100), RATES, "boot", NOON)
    receive(connection, "matrix", [Event(f"${SECRET}", ADA.external_id, SECRET.encode())], NOON)
    return ada


def cells(connection: Connection) -> Iterator[tuple[str, str]]:
    """Every value in the store, with its table."""
    for table in metadata.sorted_tables:
        for row in connection.execute(select(table)):
            for value in row:
                yield table.name, value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def traces(connection: Connection) -> set[str]:
    """The tables that know anything of Ada."""
    return {name for name, value in cells(connection) if SECRET in value or ADA.external_id in value}


async def test_behaviour_28_forget_leaves_nothing_but_what_keeps_the_grant_from_coming_twice(
    store: Database,
) -> None:
    ada = await store.write(live_fully)
    assert await store.read(traces) == {
        "account", "conversation", "delivery", "hold", "inbox", "live_session", "setting", "turn",
    }  # fmt: skip
    deleted = await store.write(forget_person, ada, KEY, NOON)
    assert (len(deleted.conversations), deleted.personas) == (1, {f"persona {SECRET}"})
    assert await store.read(traces) == set()
    assert await store.read(lambda c: c.execute(select(forgotten.c.used)).scalars().all()) == [0]
    back = await store.write(account_of, ADA)
    assert (await store.read(standing, back, NOON)).balance == 1000
    assert await store.read(check) == []


async def test_behaviour_28_export_shows_whatever_forget_would_delete(store: Database) -> None:
    ada = await store.write(live_fully)
    exported = json.dumps(await store.read(export_person, ada))
    for kept in ("question", "answer", "persona", f"key {SECRET}", f"${SECRET}", ADA.external_id, "daily"):
        assert kept in exported, kept
    assert exported.count(f"{SECRET}-3") == 1, "the hold"


async def test_forgetting_somebody_leaves_what_others_said_in_the_same_conversation(store: Database) -> None:
    def shared(connection: Connection) -> tuple[int, int]:
        conversation = talk(connection, BOB)
        say(connection, conversation, "b1", person=BOB)
        say(connection, conversation, "a1")
        say(connection, conversation, "b2", person=BOB)
        return conversation.conversation_id, account_of(connection, ADA)

    number, ada = await store.write(shared)
    deleted = await store.write(forget_person, ada, KEY, NOON)
    assert deleted == Deleted({number}, set(), {}), "its session knows"
    path = await store.read(path_to, "b2")
    assert [said.question.turn_id for said in path] == ["b1", "b2"]


async def test_forgetting_somebody_closes_the_sessions_of_forks_that_know_what_they_said(
    store: Database,
) -> None:
    def forked(connection: Connection) -> tuple[int, int, int]:
        conversation = talk(connection)
        say(connection, conversation, "a1")
        bob = account_of(connection, BOB)
        fork = begin_conversation(connection, conversation.place_id, bob, NOON, after="a1")
        say(connection, fork, "b1", person=BOB)
        return conversation.conversation_id, fork.conversation_id, account_of(connection, ADA)

    first, fork, ada = await store.write(forked)
    assert (await store.write(forget_person, ada, KEY, NOON)).conversations == {first, fork}
    path = await store.read(path_to, "b1")
    assert [said.question.turn_id for said in path] == ["b1"]


async def test_what_said_again_all_that_was_said_before_is_forgotten_with_it(store: Database) -> None:
    def anew(connection: Connection) -> Conversation:
        conversation = talk(connection)
        for turn_id in ("a", "b", "c", "d"):
            say(connection, conversation, turn_id)
        connection.execute(turn.update().where(turn.c.id == "c").values(is_anew=True))
        return conversation

    conversation = await store.write(anew)
    await store.write(forget_message, conversation.place_id, "$a")
    path = await store.read(path_to, "d")
    known = {said.question.turn_id: said.progress.prompt_ids is not None for said in path}
    assert known == {"b": False, "c": False, "d": True}


async def test_a_message_that_its_author_deletes_takes_its_answer_with_it(store: Database) -> None:
    conversation = await store.write(talk)
    number, place = conversation.conversation_id, conversation.place_id
    await store.write(say, conversation, "a")
    await store.write(say, conversation, "b")
    assert await store.write(forget_message, place + 1, "$b") == set(), "another room"
    assert await store.write(forget_message, place, "$b") == {number}
    now = await store.read(get_conversation, number)
    assert now is not None
    assert (now.head_id, await store.read(get_turn, "b")) == ("a", None)


async def test_a_turn_that_runs_is_not_deleted_under_itself(store: Database) -> None:
    conversation = await store.write(talk)

    def running(connection: Connection) -> None:
        ada = account_of(connection, ADA)
        ask(connection, Question("a", conversation.conversation_id, ada, "why?", "$a"), NOON)

    await store.write(running)
    assert await store.write(forget_message, conversation.place_id, "$a") == set()
    assert await store.read(get_turn, "a") is not None


async def test_conversations_that_nobody_uses_are_deleted_in_time(store: Database) -> None:
    def old_and_new(connection: Connection) -> tuple[int, int]:
        old = talk(connection)
        say(connection, old, "a")
        say(connection, old, "b")
        set_setting(connection, "conversation", old.conversation_id, "temperature", 0.5)
        keep_session(connection, LiveSession(old.conversation_id, "f", b"t", [9], NOON))
        later = NOON + DAY_MS
        new = talk(connection, now_ms=later)
        say(connection, new, "c", now_ms=later)
        return old.conversation_id, new.conversation_id

    old, new = await store.write(old_and_new)
    assert await store.write(purge_transcripts, NOON) == 0
    assert await store.write(purge_transcripts, NOON + 1) == 2
    assert await store.read(lambda c: list(c.scalars(select(turn.c.id)))) == ["c"]
    assert await store.read(get_conversation, old) is None
    assert await store.read(kept_session, old) is None
    assert await store.read(lambda c: dict(settings_of(c, "conversation", old))) == {}
    assert await store.read(get_conversation, new) is not None


async def test_what_a_younger_fork_goes_on_from_outlives_the_conversation_that_it_left(
    store: Database,
) -> None:
    def forked(connection: Connection) -> tuple[int, int]:
        old = talk(connection)
        say(connection, old, "a")
        say(connection, old, "b")
        later = NOON + DAY_MS
        bob = account_of(connection, BOB, later)
        fork = begin_conversation(connection, old.place_id, bob, later, after="a")
        return old.conversation_id, fork.conversation_id

    old, fork = await store.write(forked)
    assert await store.write(purge_transcripts, NOON + 1) == 1
    assert [said.question.turn_id for said in await store.read(path_to, "a")] == ["a"]
    left = await store.read(get_conversation, old)
    assert left is not None
    assert left.head_id is None, "its own last turn is gone"
    assert await store.write(purge_transcripts, NOON + 3 * DAY_MS) == 1
    assert [await store.read(get_conversation, it) for it in (old, fork)] == [None, None]


async def test_an_old_conversation_in_which_somebody_asks_again_is_kept(store: Database) -> None:
    conversation = await store.write(talk)
    await store.write(say, conversation, "a")
    later = NOON + DAY_MS

    def ask_again(connection: Connection) -> None:
        ada = account_of(connection, ADA)
        ask(connection, Question("b", conversation.conversation_id, ada, "and now?"), later)

    await store.write(ask_again)
    assert await store.write(purge_transcripts, NOON + 1) == 0
    await store.write(start, "b", "model", later)
    assert await store.write(purge_transcripts, later + DAY_MS) == 0, "it runs"
    assert [said.question.turn_id for said in await store.read(path_to, "b")] == ["a", "b"]


async def test_a_younger_forks_other_branches_keep_what_they_go_on_from(store: Database) -> None:
    def forked(connection: Connection) -> None:
        old = talk(connection)
        say(connection, old, "a")
        later = NOON + DAY_MS
        fork = begin_conversation(connection, old.place_id, account_of(connection, BOB), later, after="a")
        say(connection, fork, "b", person=BOB, now_ms=later)
        move_head(connection, fork.conversation_id, None, later)

    await store.write(forked)
    assert await store.write(purge_transcripts, NOON + 1) == 0


async def test_settings_are_what_they_were_set_to_last_and_can_be_taken_back(store: Database) -> None:
    for value in (0.5, 0.7):
        await store.write(set_setting, "place", 1, "temperature", value)
    await store.write(set_setting, "place", 1, "streaming", False)
    assert await store.read(settings_of, "place", 1) == {"temperature": 0.7, "streaming": False}
    assert await store.write(reset_settings, "place", 1, "temperature") == 1
    assert await store.read(settings_of, "place", 1) == {"streaming": False}
    assert await store.write(reset_settings, "place", 1) == 1
    assert await store.read(settings_of, "account", 1) == {}


async def test_a_ban_outlives_being_forgotten(store: Database) -> None:
    def banned(connection: Connection) -> int:
        ada = account_of(connection, ADA)
        connection.execute(account.update().where(account.c.id == ada).values(banned_until=NOON + DAY_MS))
        return ada

    ada = await store.write(banned)
    await store.write(forget_person, ada, KEY, NOON)
    back = await store.write(account_of, ADA)
    until = await store.read(lambda c: c.scalar(select(account.c.banned_until).where(account.c.id == back)))
    assert until == NOON + DAY_MS


async def test_what_did_not_fit_any_more_is_counted_anew_when_some_of_it_is_forgotten(
    store: Database,
) -> None:
    def forget_some(connection: Connection) -> list[int]:
        conversation, bob = talk(connection), account_of(connection, BOB)
        for number in range(3):
            say(connection, conversation, f"a{number}")
        say(connection, conversation, "b0", person=BOB)
        ask(connection, Question("b1", conversation.conversation_id, bob, "question", "$b1"), NOON)
        start(connection, "b1", "model", NOON)
        whole = Progress("answer", (1, 2), (3,), is_anew=True, num_dropped=4, new_tokens=1)
        end(connection, "b1", "done", NOON, whole)
        forget_person(connection, account_of(connection, ADA), KEY, NOON)
        return [said.progress.num_dropped for said in path_to(connection, "b1")]

    assert await store.write(forget_some) == [0, 1], "b0 alone is left of what did not fit"


async def test_the_settings_of_a_forgotten_conversation_are_not_those_of_the_next_one(
    store: Database,
) -> None:
    def forget_and_begin(connection: Connection) -> tuple[bool, object, object]:
        conversation = talk(connection)
        say(connection, conversation, "a")
        set_setting(connection, "conversation", conversation.conversation_id, "temperature", 2.0)
        forget_here(connection, account_of(connection, ADA), conversation.conversation_id)
        number = talk(connection, BOB, "!other:example.org").conversation_id
        old, new = (
            dict(settings_of(connection, "conversation", each))
            for each in (conversation.conversation_id, number)
        )
        return number != conversation.conversation_id, old, new

    assert await store.write(forget_and_begin) == (True, {}, {})


async def test_an_event_that_is_forgotten_does_not_take_the_place_of_the_next_one(store: Database) -> None:
    def dispose_late(connection: Connection) -> tuple[bool, list[str]]:
        ada = account_of(connection, ADA)
        (old,) = receive(connection, "matrix", [Event("$1", ADA.external_id, b"x")], NOON)
        forget_person(connection, ada, KEY, NOON)
        receive(connection, "matrix", [Event("$2", BOB.external_id, b"y")], NOON)
        was_there = dispose(connection, old.inbox_id)
        return was_there, [each.event.event_id for each in waiting(connection, "matrix")]

    assert await store.write(dispose_late) == (False, ["$2"])
