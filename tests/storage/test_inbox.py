"""The inbox: what came in is dealt with once, however often it comes and whenever the process dies."""

from pathlib import Path

from sqlalchemy import Connection

from storage.database import Database, open_database
from storage.inbox import Event, Waiting, dispose, get_marker, purge_inbox, receive, set_marker, waiting

FIRST, SECOND = Event("$1", "@ada", b'{"text": "hello"}'), Event("$2", "@ada", b'{"text": "there"}')


def both(connection: Connection) -> list[Waiting]:
    return receive(connection, "matrix", [FIRST, SECOND], 1000, {"sync": "s1"})


async def test_an_event_that_comes_again_is_known(store: Database) -> None:
    new = await store.write(both)
    assert [each.event for each in new] == [FIRST, SECOND]
    assert await store.write(both) == []
    assert await store.read(waiting, "matrix") == new


async def test_the_same_id_on_another_platform_is_another_event(store: Database) -> None:
    await store.write(both)
    new = await store.write(receive, "discord", [FIRST], 1000)
    assert [each.event for each in new] == [FIRST]
    assert [each.event for each in await store.read(waiting, "discord")] == [FIRST]


async def test_what_was_dealt_with_leaves_no_text_and_never_comes_back(store: Database) -> None:
    first, second = await store.write(both)
    assert await store.write(dispose, first.inbox_id)
    assert not await store.write(dispose, first.inbox_id), "somebody else was faster"
    assert await store.write(both) == []
    assert await store.read(waiting, "matrix") == [second]


async def test_events_and_how_far_was_read_are_kept_together_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    async with open_database(path) as store:
        new = await store.write(both)
    async with open_database(path) as store:
        assert await store.read(waiting, "matrix") == new
        assert await store.read(get_marker, "matrix", "sync") == "s1"
        assert await store.read(get_marker, "discord", "sync") is None


async def test_a_marker_is_what_it_was_set_to_last(store: Database) -> None:
    for value in ("1", "2"):
        await store.write(set_marker, "discord", "channel", value)
    assert await store.read(get_marker, "discord", "channel") == "2"


async def test_old_events_are_forgotten_once_they_were_dealt_with(store: Database) -> None:
    first, second = await store.write(both)
    await store.write(dispose, first.inbox_id)
    assert await store.write(purge_inbox, 1000) == 0, "they came at that very moment"
    assert await store.write(purge_inbox, 1001) == 1
    assert await store.read(waiting, "matrix") == [second]
