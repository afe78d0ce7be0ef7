"""Answers are cut into messages that are whole in themselves, and nothing of them is lost."""

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from bot.rendering.fences import open_at_end
from bot.rendering.preview import EXTRA, MARK, open_code_mark, preview
from bot.rendering.splitting import Part, split, utf16_units
from tests.bot.markdown import ANSWERS, is_balanced, num_fences

CODE = "```python\n" + "".join(f"print({number})\n" for number in range(60)) + "```\n"


def texts(parts: list[Part]) -> list[str]:
    return [part.text for part in parts]


def is_only_fences(added: str) -> bool:
    """Nothing, or one line that opens or closes a fence."""
    return regex.fullmatch(r"\n?[ ]*(`{3,}|~{3,}).*\n?", added) is not None if added else True


@given(ANSWERS, st.integers(100, 400))
@example("- \n\n   ```\nword", 100)  # a blank line ends an item that has nothing in it
@example("- -\n\n  ```\nword", 100)
@example("-\n  ```\nword", 100)
def test_behaviour_05_parts_fit_lose_nothing_add_only_fences_and_are_balanced(text: str, limit: int) -> None:
    parts = split(text, limit, utf16_units)
    assert "".join(part.body for part in parts) == text
    for part in parts:
        assert utf16_units(part.text) <= limit
        assert part.body
        assert is_only_fences(part.opening)
        assert is_only_fences(part.closing)
        assert is_balanced(part.text), part.text


@given(st.text(alphabet="`~ \n\tab1.-*>é🎉\u0301\u200d", max_size=400), st.integers(100, 150))
def test_behaviour_05_holds_for_any_letters(text: str, limit: int) -> None:
    parts = split(text, limit, utf16_units)
    assert "".join(part.body for part in parts) == text
    assert all(utf16_units(part.text) <= limit for part in parts)
    assert all(is_balanced(part.text) for part in parts)


@given(ANSWERS, st.integers(100, 400), st.data())
def test_behaviour_06_every_preview_fits_and_is_balanced(text: str, limit: int, data: st.DataObject) -> None:
    shown = preview(text[: data.draw(st.integers(0, len(text)))], limit, utf16_units)
    for part in shown:
        assert utf16_units(part.text) <= limit + EXTRA
        assert is_balanced(part.text), part.text
    assert shown[-1].text.endswith(MARK)


@given(ANSWERS)
@example("word\n- \n   ```")  # an empty item ends no paragraph: this underlines it
@example("word\n* \n   ```")
@example("word\n10) word\n  ```")
@example("- word\n10) word\n    ```")
@example("* - word\n10) \n   ```")  # a new item is no more of the paragraph before
@example("word\n===\r\n- \n  ```")
@example("-     \n\n  ```")
@example("> q\n2. word\n   ```")  # what is quoted is nobody's paragraph but the quote's
@example(">\n*\n  ```")
@example("> a\nb\n2. c\n   ```")
@example("* * *\n  ```\nx")  # a rule, and no item in an item
@example("1. a\n***b***\n   ```python")
@example("- a\n#tag\n  ```")
@example("a\u2028```")  # no end of a line to Markdown
@example("```\ncode\n```\xa0")
def test_the_fence_that_we_believe_to_be_open_is_open(text: str) -> None:
    assert is_balanced(text) == (open_at_end(text) is None or open_at_end(text + "\nx") is None)


@given(ANSWERS, st.integers(100, 400))
def test_what_was_cut_once_is_cut_there_again_when_more_has_come(text: str, limit: int) -> None:
    whole = split(text, limit)
    for num_letters in range(0, len(text), 97):
        for early, late in zip(split(text[:num_letters], limit)[:-1], whole, strict=False):
            assert early.body == late.body or num_letters < sum(map(len, texts(whole)))


@given(st.text(alphabet=st.characters(categories=["L", "M", "So", "Sk"]), max_size=300))
def test_no_letter_is_torn_apart(text: str) -> None:
    letters, at = regex.findall(r"\X", text), 0
    ends = {at := at + len(letter) for letter in letters}
    if max(map(utf16_units, letters), default=0) < 90:
        place = 0
        for part in split(text, 100, utf16_units):
            place += len(part.body)
            assert place in ends


def test_code_is_closed_and_opened_again_with_its_language() -> None:
    first, *middle, last = split("Look:\n\n" + CODE + "\nThat is all.", 300)
    assert first.text.startswith("Look:\n\n```python\nprint(0)\n")
    assert first.text.endswith(")\n```")
    assert all(part.text.startswith("```python\nprint(") and part.text.endswith(")\n```") for part in middle)
    assert last.text.startswith("```python\n")
    assert last.text.endswith("```\n\nThat is all.")


def test_no_message_ends_or_begins_with_empty_code() -> None:
    for length in range(60, 130):
        for part in split("x" * length + "\n" + CODE, 150):
            assert num_fences(part.text) <= 1
            assert "```python\n```" not in part.text


def test_a_fence_in_a_fence_is_only_text() -> None:
    inner = "````md\n" + "```py\nprint(1)\n```\n" * 20 + "````\n"
    for part in split(inner, 120):
        assert part.text.startswith("````md\n")
        assert part.text.rstrip().endswith("\n````")
        assert num_fences(part.text) == 1


def test_a_language_that_is_too_long_is_not_repeated() -> None:
    _, *later = split("```" + "y" * 60 + "\n" + "code\n" * 60 + "```", 120)
    assert later
    assert all(part.text.startswith("```\ncode\n") for part in later)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a" * 60 + "\n\n" + "b" * 30 + "\n" + "c" * 60, "a" * 60 + "\n\n"),
        ("a" * 60 + "\n" + "b" * 30 + ". " + "c" * 60, "a" * 60 + "\n"),
        ("a" * 60 + ". " + "b" * 30 + " " + "c" * 60, "a" * 60 + ". "),
        ("日" * 60 + "。" + "本" * 60, "日" * 60 + "。"),
        ("a" * 60 + " " + "b" * 60, "a" * 60 + " "),
        ("a" * 10 + "\n\n" + "b" * 160, "a" * 10 + "\n\n" + "b" * 88),
    ],
    ids=["paragraph", "line", "sentence", "sentence without spaces", "word", "none that fills it"],
)
def test_a_cut_is_where_a_reader_would_make_it(text: str, first: str) -> None:
    assert split(text, 100)[0].body == first


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("use `foo", "`"),
        ("use ``a ` b", "``"),
        ("use `foo`", ""),
        ("use `", ""),
        ("one `open\n\nparagraph", ""),
        ("```\n`in code", ""),
        ("- ```\n  code\nuse `foo", "`"),  # the item ended, and its fence with it
        ("a `b\n``", ""),  # one more would be a fence
        ("use ``a`", ""),
    ],
)
def test_inline_code_is_closed_in_a_preview(text: str, mark: str) -> None:
    assert open_code_mark(text) == mark


def test_a_preview_of_nothing_is_the_mark_alone() -> None:
    assert texts(preview("", 100)) == [MARK]


@pytest.mark.parametrize("limit", [0, 99])
def test_a_limit_without_room_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="room for 100"):
        split("text", limit)


@pytest.mark.parametrize(
    "text",
    ["`" * 5000, "- " * 8 + "```\ncode", "~" * 5000 + "\nx", "```" + "i" * 5000, "e" + "\u0301" * 5000],
)
def test_monstrous_answers_are_cut_all_the_same(text: str) -> None:
    parts = split(text, 1900, utf16_units)
    assert "".join(part.body for part in parts) == text
    assert all(utf16_units(part.text) <= 1900 and is_balanced(part.text) for part in parts)
