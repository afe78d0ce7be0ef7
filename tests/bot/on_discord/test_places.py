"""How far Discord was read, without Discord."""

from bot.on_discord.places import DISCORD_EPOCH_MS, MARKER, MOST_PLACES, Places, moment_ms

DAY_MS = 86_400_000
NOW_MS = DISCORD_EPOCH_MS + 100 * DAY_MS


def id_at(at_ms: int) -> int:
    return (at_ms - DISCORD_EPOCH_MS) << 22


def test_what_is_noted_is_known_after_a_restart() -> None:
    places = Places()
    places.note(1, id_at(NOW_MS))
    marker = places.note(2, id_at(NOW_MS + 5))[MARKER]
    assert Places(marker).active(NOW_MS) == {1: id_at(NOW_MS), 2: id_at(NOW_MS + 5)}
    assert moment_ms(id_at(NOW_MS)) == NOW_MS


def test_an_older_message_does_not_set_a_place_back() -> None:
    places = Places()
    places.note(1, 20)
    places.note(1, 10)
    places.note_seen(1, 15)
    assert places.active(DISCORD_EPOCH_MS) == {1: 20}
    places.note_seen(1, 30)
    places.note_seen(2, 40)
    assert places.active(DISCORD_EPOCH_MS) == {1: 30}


def test_a_place_that_is_to_be_read_on_stays_where_it_was_until_it_is_read() -> None:
    places = Places()
    places.note(1, 20)
    places.hold([1])
    marker = places.note(1, 30)[MARKER]
    places.note_seen(1, 40)
    places.hold([1])
    assert places.active(DISCORD_EPOCH_MS) == Places(marker).active(DISCORD_EPOCH_MS) == {1: 20}
    assert Places(places.let_go(1)[MARKER]).active(DISCORD_EPOCH_MS) == {1: 40}
    assert places.let_go(1) == {}
    places.note(1, 50)
    assert places.active(DISCORD_EPOCH_MS) == {1: 50}


def test_a_place_that_is_left_while_it_is_read_on_is_forgotten() -> None:
    places = Places()
    places.note(1, 20)
    places.hold([1])
    places.note(1, 30)
    assert Places(places.forget(1)[MARKER]).active(DISCORD_EPOCH_MS) == {}
    assert places.let_go(1) == {}
    assert 1 not in places


def test_a_place_that_was_silent_for_a_week_is_not_read_on() -> None:
    places = Places()
    places.note(1, id_at(NOW_MS - 8 * DAY_MS))
    places.note(2, id_at(NOW_MS - 6 * DAY_MS))
    assert list(places.active(NOW_MS)) == [2]


def test_of_too_many_places_the_one_that_was_silent_longest_is_forgotten() -> None:
    places = Places()
    for place in range(MOST_PLACES + 1):
        places.note(place, 100 - place if place < 2 else 1000 + place)
    assert 1 not in places.active(0)
    assert len(places.active(0)) == MOST_PLACES
