"""How much of an answer was seen, in tokens; and when nobody knows."""

import pytest

from bot.turns.seen import Growth, Seen
from bot.words import Limited, Refused, Unreachable


def test_tokens_are_seen_when_all_of_their_text_is() -> None:
    growth = Growth()
    for letters, tokens in ((3, 1), (3, 2), (10, 4)):
        growth.note(letters, tokens)
    assert [growth.tokens_within(letters) for letters in (0, 2, 3, 9, 10, 11)] == [0, 0, 2, 2, 4, 4]


def test_tokens_of_hidden_thoughts_alone_are_not_seen() -> None:
    growth = Growth()
    growth.note(0, 7)
    growth.note(5, 9)
    assert [growth.tokens_within(letters) for letters in (0, 1, 5)] == [0, 7, 9]


def test_what_was_seen_once_stays_seen() -> None:
    seen = Seen()
    seen.note(9)
    seen.note(4)
    assert seen.num_letters == 9


@pytest.mark.parametrize(
    ("error", "is_unsure"),
    [(Refused("no"), False), (Limited(1.0), False), (Unreachable("gone"), True), (TimeoutError(), True)],
)
def test_a_message_without_an_answer_may_be_there(error: Exception, is_unsure: bool) -> None:
    seen = Seen()
    with pytest.raises(type(error)), seen.sending(0):
        raise error
    assert seen.is_unsure == is_unsure


def test_what_may_be_there_is_not_made_sure_by_a_later_refusal_but_by_being_shown() -> None:
    seen = Seen()
    for error in (Unreachable("gone"), Refused("no")):
        with pytest.raises(type(error)), seen.sending(0):
            raise error
    assert seen.is_unsure
    with seen.sending(0):
        pass
    assert not seen.is_unsure


def test_what_is_looked_for_and_not_found_is_not_there_and_a_look_that_fails_says_nothing() -> None:
    seen = Seen()
    with pytest.raises(Unreachable), seen.looking_for({0, 1}):
        raise Unreachable("gone")
    assert seen.is_unsure
    with seen.looking_for({0, 1}):
        pass
    assert not seen.is_unsure
