"""Transcripts: turns end once, forks share what came before, and token ids come back as they were."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from storage.conversations import (
    Conversation,
    begin_conversation,
    current_conversation,
    get_conversation,
    latest_conversation,
    make_current,
    move_head,
    note_encrypted,
    note_told,
    open_place,
    rooted_conversation,
    set_persona,
    turn_behind,
)
from storage.database import Database
from storage.deliveries import Delivery, deliveries_of, intend, note_gone, note_shown
from storage.live_sessions import LiveSession, drop_session, keep_session, kept_session
from storage.token_ids import pack_ids, unpack_ids
from storage.transcript import (
    Progress,
    Question,
    Said,
    ask,
    checkpoint,
    end,
    extend,
    get_turn,
    open_turns,
    path_to,
    requeue,
    start,
)
from tests.storage.people import ADA, BOB, NOON, account_of, say, talk

ROOM = "!room:example.org"
SOME = Progress("half an ans", (10, 11), (12,), prefill_tokens=2, new_tokens=1)


def asked(connection: Connection, turn_id: str = "t") -> Conversation:
    conversation = talk(connection)
    account_id = account_of(connection, ADA)
    ask(connection, Question(turn_id, conversation.conversation_id, account_id, "why?"), NOON)
    return conversation


def place_id(connection: Connection) -> int:
    return open_place(connection, "matrix", ROOM, NOON).place_id


def ids(path: list[Said]) -> list[str]:
    return [said.question.turn_id for said in path]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=300))
def test_token_ids_come_back_as_they_were(some: list[int]) -> None:
    assert unpack_ids(pack_ids(some)) == some


@pytest.mark.parametrize("bad", [-1, 2**32])
def test_an_id_that_is_no_token_is_refused(bad: int) -> None:
    with pytest.raises(OverflowError):
        pack_ids([bad])


WHOLE = pack_ids([1, 2, 3])


@pytest.mark.parametrize("damaged", [WHOLE[:-1], b"x" + WHOLE, b"", zlib.compress(b"12345")])
def test_damaged_token_ids_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack_ids(damaged)


async def test_a_turn_is_queued_runs_and_ends_once(store: Database) -> None:
    conversation = await store.write(asked)
    assert await store.write(start, "t", "demo", NOON)
    assert not await store.write(start, "t", "demo", NOON), "somebody else was faster"
    assert await store.write(checkpoint, "t", SOME)
    done = Progress("half an answer", (10, 11), (12, 13), prefill_tokens=2, new_tokens=2)
    assert await store.write(end, "t", "done", NOON + 5, done)
    assert not await store.write(end, "t", "stopped", NOON + 6)
    assert not await store.write(checkpoint, "t", SOME)
    said = await store.read(get_turn, "t")
    assert said is not None
    assert (said.state, said.progress, said.ended_ms, said.model) == (
        "done", replace(done, prompt_ids=[10, 11], answer_ids=[12, 13]), NOON + 5, "demo",
    )  # fmt: skip
    now = await store.read(get_conversation, conversation.conversation_id)
    assert now is not None
    assert now.head_id == "t"


async def test_a_turn_that_said_nothing_is_not_what_the_next_one_follows(store: Database) -> None:
    conversation = await store.write(asked)
    await store.write(end, "t", "failed", NOON)
    now = await store.read(get_conversation, conversation.conversation_id)
    assert now == conversation


async def test_a_question_is_queued_once(store: Database) -> None:
    await store.write(asked)
    with pytest.raises(IntegrityError):
        await store.write(asked)


async def test_a_question_grows_while_nothing_of_its_answer_is_to_be_seen(store: Database) -> None:
    await store.write(asked)
    assert await store.write(extend, "t", "why?\nand how?")
    await store.write(start, "t", "demo", NOON)
    await store.write(checkpoint, "t", SOME)
    assert not await store.write(extend, "t", "too late")
    said = await store.read(get_turn, "t")
    assert said is not None
    assert said.question.prompt == "why?\nand how?"


async def test_after_a_crash_what_had_shown_nothing_waits_again_and_the_rest_does_not(
    store: Database,
) -> None:
    for turn_id, progress in (("silent", None), ("seen", SOME)):
        await store.write(asked, turn_id)
        await store.write(start, turn_id, "demo", NOON)
        if progress:
            await store.write(checkpoint, turn_id, progress)
    found = [(said.question.turn_id, said.state) for said in await store.read(open_turns)]
    assert sorted(found) == [("seen", "running"), ("silent", "running")]
    assert await store.write(requeue, "silent")
    assert not await store.write(requeue, "seen")


async def test_a_fork_has_what_came_before_and_nothing_of_what_comes_after(store: Database) -> None:
    def fork(connection: Connection) -> tuple[Conversation, Conversation]:
        first = talk(connection)
        set_persona(connection, first.conversation_id, "a pirate")
        say(connection, first, "a")
        say(connection, first, "b")
        other = begin_conversation(
            connection, first.place_id, account_of(connection, BOB), NOON + 1, after="a"
        )
        say(connection, other, "c", person=BOB)
        say(connection, first, "d")
        return first, other

    first, other = await store.write(fork)
    heads = [await store.read(get_conversation, it.conversation_id) for it in (first, other)]
    paths = [await store.read(path_to, it.head_id) for it in heads if it is not None]
    assert [ids(path) for path in paths] == [["a", "b", "d"], ["a", "c"]]
    assert other.persona == "a pirate"
    assert await store.read(path_to, None) == []


async def test_a_place_goes_on_with_the_conversation_that_became_current_last(store: Database) -> None:
    first = await store.write(talk)
    second = await store.write(talk, now_ms=NOON + 1)
    place = await store.write(place_id)
    assert await store.read(current_conversation, place) == second
    await store.write(make_current, first.conversation_id, NOON + 2)
    assert await store.read(current_conversation, place) == first


async def test_a_thread_is_found_by_its_root_and_never_by_its_place(store: Database) -> None:
    place = await store.write(place_id)

    def begin(connection: Connection) -> Conversation:
        return begin_conversation(connection, place, account_of(connection, ADA), NOON, root="$root")

    thread = await store.write(begin)
    assert await store.read(rooted_conversation, place, "$root") == thread
    assert await store.read(rooted_conversation, place, "$other") is None
    assert await store.read(current_conversation, place) is None


async def test_the_latest_conversation_of_somebody_is_where_they_asked_last(store: Database) -> None:
    def two(connection: Connection) -> tuple[Conversation, int]:
        old, new = talk(connection), talk(connection, BOB, now_ms=NOON + 1)
        say(connection, new, "a", now_ms=NOON + 2)
        say(connection, old, "b", now_ms=NOON + 3)
        say(connection, new, "c", person=BOB, now_ms=NOON + 4)
        return old, account_of(connection, ADA)

    old, ada = await store.write(two)
    found = await store.read(latest_conversation, old.place_id, ada)
    assert found is not None
    assert found.conversation_id == old.conversation_id


async def test_a_message_leads_to_its_turn_whether_it_asked_or_answered(store: Database) -> None:
    conversation = await store.write(talk)
    place = conversation.place_id
    await store.write(say, conversation, "t")
    await store.write(intend, Delivery("t", 0, place, "key"), NOON)
    await store.write(note_shown, "t", 0, "$answer", NOON)
    found = [await store.read(turn_behind, place, it) for it in ("$t", "$answer", "$x")]
    assert found == ["t", "t", None]
    assert await store.read(turn_behind, place + 1, "$answer") is None, "another room"


async def test_a_message_is_named_before_it_is_sent_and_keeps_its_name(store: Database) -> None:
    conversation = await store.write(talk)
    await store.write(say, conversation, "t")
    parts = [Delivery("t", part, conversation.place_id, f"key {part}") for part in (0, 1)]
    for part in parts:
        assert await store.write(intend, part, NOON) == part
    again = Delivery("t", 0, conversation.place_id, "another key")
    assert await store.write(intend, again, NOON) == parts[0]
    await store.write(note_shown, "t", 0, "$m", NOON)
    await store.write(note_gone, "t", 1, NOON)
    assert await store.read(deliveries_of, "t") == [Delivery("t", 0, conversation.place_id, "key 0", "$m")]


async def test_a_room_that_was_once_encrypted_stays_so(store: Database) -> None:
    place = await store.write(place_id)
    await store.write(note_encrypted, place)
    assert (await store.write(open_place, "matrix", ROOM, NOON)).is_encrypted


async def test_a_room_is_told_once(store: Database) -> None:
    place = await store.write(place_id)
    assert [await store.write(note_told, place, NOON) for _ in range(2)] == [True, False]


async def test_the_newest_ticket_of_a_session_counts(store: Database) -> None:
    conversation = await store.write(talk)
    number = conversation.conversation_id
    sessions = [LiveSession(number, "f", ticket, [7, 8], NOON) for ticket in (b"old", b"new")]
    for session in sessions:
        await store.write(keep_session, session)
    assert await store.read(kept_session, number) == sessions[-1]
    await store.write(drop_session, number)
    assert await store.read(kept_session, number) is None


async def test_undo_goes_back_to_the_turn_before(store: Database) -> None:
    conversation = await store.write(talk)
    await store.write(say, conversation, "a")
    await store.write(say, conversation, "b")
    await store.write(move_head, conversation.conversation_id, "a", NOON)
    now = await store.read(get_conversation, conversation.conversation_id)
    assert now is not None
    assert ids(await store.read(path_to, now.head_id)) == ["a"]
    assert await store.read(get_turn, "b") is not None, "kept in the history"
