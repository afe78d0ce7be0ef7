"""The room in the terminal: files are written beside, for their owner alone."""

from pathlib import Path

import pytest

from bot.on_terminal import HERE, PERSON, Terminal
from bot.words import Attached, Inbound, Refused
from tests.bot.clock import FakeClock

ASKED = Inbound("e", HERE, PERSON, "", 0)


async def test_a_file_is_written_beside_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(FakeClock(), tmp_path)
    for content in (b"one", b"two", b"three"):
        await terminal.tell(ASKED, "It is in the file.", ("history.md", content))
    names = ("history.md", "history-2.md", "history-3.md")
    assert [(tmp_path / name).read_bytes() for name in names] == [b"one", b"two", b"three"]
    assert (tmp_path / "history.md").stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["[It is in the file.]", f"[written to {tmp_path / 'history.md'}]"]


async def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    await Terminal(FakeClock(), missing).tell(ASKED, "", ("history.md", b"one"))
    assert (
        f"[the file cannot be written into {missing}: No such file or directory]" in capsys.readouterr().err
    )


def test_a_moment_is_told_in_utc_and_by_how_far_away_it_is() -> None:
    assert Terminal(FakeClock()).moment(18_000_000, 0) == "05:00 UTC, in 5 hours"


async def test_nothing_comes_with_a_line() -> None:
    with pytest.raises(Refused):
        await Terminal(FakeClock()).read(Attached("a", "", 1, "a"), 1)
