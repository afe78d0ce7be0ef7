"""`./murmur status`: the page and the JSON of built records, and the command beside a real server."""

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.commands.status import add_arguments, in_place, run_status
from swarm.commands.status_page import MAX_ROWS, Axis, Look, page
from swarm.commands.status_report import Report
from swarm.commands.status_text import cut, num_cells, plain
from swarm.errors import ConfigError
from swarm.identity import temporary_identity
from swarm.wire.blocks import Span
from swarm.wire.records import ServerRecord
from tests.models import make_model
from tests.swarm.peers import FINGERPRINT, server_record

NOW = 1_000_000.0
COMMAND_S = 40.0


def server(start: int, end: int, **changes: Any) -> ServerRecord:
    with temporary_identity() as identity:
        said = {"issued_at": NOW - 3, "expires_at": NOW + 27}
        return server_record(identity, start=start, end=end, **(said | changes))


def report(*servers: ServerRecord, num_blocks: int = 8, **changes: Any) -> Report:
    fields: dict[str, Any] = {"model": "owner/model", "fingerprint": FINGERPRINT, "now": NOW} | changes
    return Report(num_blocks=num_blocks, servers=servers, **fields)


def shown(seen: Report, look: Look | None = None) -> str:
    return "\n".join(page(seen, look or Look()))


def test_a_covered_model_is_complete() -> None:
    seen = report(server(0, 4), server(4, 8), server(2, 6))
    assert seen.is_complete
    assert seen.missing_spans == ()
    assert page(seen, Look())[0] == (
        "owner/model: 8 of 8 blocks covered, 3 servers; complete, the swarm can answer"
    )


def test_blocks_without_a_server_are_named_with_what_to_do() -> None:
    seen = report(server(0, 3), server(6, 7))
    assert seen.missing_spans == (Span(3, 6), Span(7, 8))
    assert page(seen, Look())[0] == (
        "owner/model: 4 of 8 blocks covered, 2 servers; no server for blocks 3-5, 7; "
        "see ./murmur serve --help"
    )


@pytest.mark.parametrize("state", ["joining", "draining"])
def test_a_server_that_is_not_online_covers_nothing(state: str) -> None:
    seen = report(server(0, 4), server(4, 8, state=state))
    assert seen.missing_spans == (Span(4, 8),)
    assert "2 servers (1 of them not usable now)" in shown(seen)
    assert "▒" * 16 in shown(seen)


def test_a_server_that_names_blocks_beyond_the_model_covers_nothing_and_is_marked() -> None:
    seen = report(server(0, 65_535))
    assert not seen.usable
    assert seen.missing_spans == (Span(0, 8),)
    assert "0:65535!" in shown(seen)
    assert "! names blocks that this model does not have" in shown(seen)


def test_without_servers_the_page_says_what_to_do() -> None:
    lines = page(report(), Look(width=500))
    assert len(lines) == 1
    assert "no servers; start one with ./murmur serve owner/model --initial-peers" in lines[0]
    assert FINGERPRINT in lines[0]


def test_a_swarm_that_went_away_is_not_called_a_swarm_without_servers() -> None:
    assert "no peer of the swarm answers" in shown(report(num_peers=0))


def test_the_picture_has_a_bar_per_server_and_the_number_of_servers_of_every_block() -> None:
    first, second = server(0, 4), server(2, 6)
    lines = page(report(second, first), Look())
    assert lines[2:7] == [
        "block      0   1   2   3   4   5   6   7",
        f"…{first.peer[-8:]}  {'█' * 16}{'·' * 16}  0:4",
        f"…{second.peer[-8:]}  {'·' * 8}{'█' * 16}{'·' * 8}  2:6",
        "servers    1   1   2   2   1   1   0   0",
        "           █ usable, ▒ not now",
    ]


def test_a_single_missing_block_of_many_shows_in_its_column() -> None:
    lines = page(report(server(0, 70), server(71, 126), num_blocks=126), Look(width=80))
    counts = next(line for line in lines if line.startswith("servers "))
    assert counts.count("0") == 1
    assert "up to 3 blocks a column" in "\n".join(lines)


def test_more_than_nine_servers_of_a_block_are_a_plus() -> None:
    assert "servers    +" in shown(report(*(server(0, 1) for _ in range(10)), num_blocks=1))


@pytest.mark.parametrize("num_blocks", [1, 2, 8, 33, 126, 1024])
@pytest.mark.parametrize("room", [0, 8, 40, 200])
def test_the_axis_has_every_block_in_order_within_its_room(num_blocks: int, room: int) -> None:
    axis = Axis.fitting(num_blocks, room)
    assert axis.num_cells <= max(room, 8)
    assert len(axis.cells) == axis.num_cells
    assert sorted({block for cell in axis.cells for block in range(*cell)}) == list(range(num_blocks))
    assert max(stop - start for start, stop in axis.cells) == axis.blocks_per_cell
    assert num_cells(axis.labels()) <= axis.num_cells


def test_the_table_shows_what_the_server_announced() -> None:
    seen = report(
        server(
            0, 8, throughput=1234.5, inference_rps=7.25, free_tokens=16_384, queue_depth=3, dtype="bfloat16",
            quantization="nf4", version="0.1.0", is_relayed=True, public_name="Ada's desk",
        )
    )  # fmt: skip
    row = page(seen, Look(width=200))[-1]
    assert re.split(r" {2,}", row)[1:] == [
        "0:8", "online", "1,234", "7.2", "16,384", "3", "bfloat16/nf4", "0.1.0", "yes", "3 s", "Ada's desk",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 132, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_line_is_wider_than_the_terminal_whatever_servers_claim(width: int, encoding: str) -> None:
    vast = {"throughput": 1e9, "inference_rps": 1e9, "free_tokens": 2**53, "queue_depth": 1_000_000}
    seen = report(
        server(0, 8, **vast, public_name="漢" * 64, version="ﷺ" * 32), server(0, 65_535), server(7, 8)
    )
    lines = page(seen, Look(width=width, encoding=encoding))
    assert max(map(num_cells, lines)) <= width
    assert "\n".join(lines).encode(encoding)
    assert any("no room for" in line for line in lines) == (width < 132)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("\x1b[2J\x1b]0;title\x07me", "[2J]0;titleme"),
        ("a\r\nb\tc\x00\x7f\x9b31m", "abc31m"),
        ("\u202egnp.exe\u2066\u200f\u200b", "gnp.exe"),
        ("line\u2028paragraph\u2029", "lineparagraph"),
        ("Z\u0335\u0336\u0337\u0338algo", "Z\u0335algo"),
        ("\u0301", "-"),
        ("a\u00a0\u3000b", "a  b"),
        ("\ue000\U000e0041\ufdd0", "-"),
        ("", "-"),
        ("Ådas Rechner", "Ådas Rechner"),
    ],
)
def test_what_could_fake_or_break_terminal_output_is_taken_out(said: str, seen: str) -> None:
    assert plain(said) == seen


def test_a_name_that_the_terminal_cannot_write_becomes_question_marks() -> None:
    assert plain("Käthe 漢", "ascii") == "K?the ?"


def test_text_is_cut_by_the_columns_that_it_takes() -> None:
    assert cut("abcdef", 4, "…") == "abc…"
    assert cut("漢字漢字", 4, "…") == "漢…"
    assert cut("漢字", 4, "…") == "漢字"


def test_hostile_fields_reach_the_page_without_control_characters() -> None:
    said = {"public_name": "\u202e\u0085evil\u009b2J", "version": "\x1b[31mred\n\nfake row"}
    wide = Look(width=200)
    text = shown(report(server(0, 8, **said)), wide)
    assert "\x1b" not in text
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    assert text.count("\n") == shown(report(server(0, 8)), wide).count("\n")


def test_a_flood_of_servers_is_cut_and_counted() -> None:
    one = server(0, 8)
    lines = page(report(*[one] * (MAX_ROWS + 20)), Look())
    assert lines[-1] == "and 20 more servers; --json lists all"
    assert len(lines) < 2 * MAX_ROWS + 12


def test_colours_come_only_when_asked_for_and_leave_the_words_as_they_are() -> None:
    seen = report(server(0, 4), server(4, 6, state="joining"))
    assert "\x1b" not in shown(seen)
    coloured = shown(seen, Look(has_colour=True))
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == shown(seen)


def test_json_has_stable_keys_every_field_of_a_record_and_only_ascii() -> None:
    text = report(server(0, 3, public_name="\u202eevil\u009b"), server(4, 8, state="draining")).as_json()
    assert text.isascii()
    assert "\n" not in text
    said = json.loads(text)
    keys = ["model", "fingerprint", "num_blocks", "complete", "missing", "hosted_instead", "servers"]
    assert list(said) == keys
    assert said["complete"] is False
    assert said["missing"] == [[3, 8]]
    assert set(said["servers"][0]) == {*ServerRecord.__struct_fields__, "age_s", "usable"}
    assert [line["usable"] for line in said["servers"]] == [True, False]
    assert said["servers"][0]["age_s"] == 3.0


def test_a_record_from_a_clock_that_is_ahead_is_not_younger_than_new() -> None:
    assert report().age_s(server(0, 8, issued_at=NOW + 2)) == 0.0


def test_a_watched_page_never_scrolls_the_terminal() -> None:
    text = in_place([f"line {number}" for number in range(50)], height=24)
    assert text.count("\n") < 24
    assert "29 more lines" in text
    assert in_place(["line"], height=24).startswith("\x1b[Hline\x1b[K\n")


# ---------------------------------------------------------------- the command, beside a real server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"), "llama")


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that hosts blocks 0:4 of 6 in a swarm of its own; it ends with the module."""
    home = tmp_path_factory.mktemp("home")
    ready = home / "ready.json"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "server", str(model), "--new-swarm", "--blocks", "0:4",
            "--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--ready-file", str(ready),
            "--kv-tokens", "999", "--public-name", "\u202eAda 1",
        ],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("reached at"):
                break
        assert ready.exists(), "".join(said)
        yield json.loads(ready.read_text())["addresses"][0]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command; whatever was started ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*options: str, **changes: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "swarm", "status", *options]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "TERM": "xterm"}
        started.append(
            subprocess.Popen(command, text=True, encoding="utf-8", env=environment, **(pipes | changes))
        )
        return started[-1]

    yield start_one
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    said, complained = process.communicate(timeout=COMMAND_S)
    return process.returncode, said, complained


def test_the_command_shows_the_server_and_the_gap(model: Path, address: str, start: Start) -> None:
    code, said, complained = ended(start(str(model), "--initial-peers", address))
    assert (code, complained) == (0, "")
    assert "4 of 6 blocks covered, 1 server; no server for blocks 4-5" in " ".join(said.split())
    assert f"…{address[-8:]}  {'█' * 16}{'·' * 8}  0:4" in said
    assert any(line.endswith(" s  Ada 1") for line in said.splitlines())
    assert "\x1b" not in said


def test_check_exits_with_1_if_blocks_are_missing_and_json_names_them(
    model: Path, address: str, start: Start
) -> None:
    code, said, complained = ended(start(str(model), "--initial-peers", address, "--json", "--check"))
    assert (code, complained) == (1, "")
    seen = json.loads(said)
    assert (seen["complete"], seen["missing"], seen["num_blocks"]) == (False, [[4, 6]], 6)
    (only,) = seen["servers"]
    assert (only["peer"], only["state"], only["usable"]) == (address.rpartition("/")[2], "online", True)
    assert only["throughput"] > 0


@pytest.mark.slow
def test_a_model_that_nobody_serves_is_no_mistake(tmp_path: Path, address: str, start: Start) -> None:
    other = make_model(tmp_path, "llama", num_hidden_layers=2)
    code, said, complained = ended(start(str(other), "--initial-peers", address))
    assert (code, complained) == (0, "")
    assert "no servers; this swarm hosts" in " ".join(said.split())


@pytest.mark.slow
def test_a_watch_on_a_pipe_adds_reports_until_a_signal_ends_it_with_0(
    model: Path, address: str, start: Start
) -> None:
    process = start(str(model), "--initial-peers", address, "--json", "--watch")
    assert process.stdout is not None
    first, second = (json.loads(process.stdout.readline())["servers"] for _ in range(2))
    assert first[0]["peer"] == second[0]["peer"]
    process.send_signal(signal.SIGINT)
    code, _, complained = ended(process)
    assert (code, complained) == (0, "")


@pytest.mark.slow
def test_a_watch_whose_reader_goes_away_ends_without_a_word(model: Path, address: str, start: Start) -> None:
    process = start(str(model), "--initial-peers", address, "--json", "--watch")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(COMMAND_S) == 0
    assert process.stderr.read() == ""
    process.stdout = None  # so that the fixture does not read it again


def test_a_watch_on_a_terminal_redraws_in_place_and_in_colour(
    model: Path, address: str, start: Start
) -> None:
    ours, theirs = pty.openpty()
    try:
        process = start(str(model), "--initial-peers", address, "--watch", stdout=theirs)
        said = _read_until(ours, b"Ctrl-C ends", times=2)
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert said.count("\x1b[H") == 2
    assert "\x1b[31m" in said


def _read_until(descriptor: int, words: bytes, times: int) -> str:
    deadline, said = time.monotonic() + COMMAND_S, b""
    while said.count(words) < times and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 1.0)[0]:
            said += os.read(descriptor, 65_536)
    return said.decode()


NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWQgmByeMj7Aos2NQLMvSKGLfhkN5C4Cq2hHJX9KBct7gk"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("MODEL", "--initial-peers", NOBODY), "none of the initial peers answers"),
        (("MODEL", "--initial-peers", NOBODY, "--watch"), "none of the initial peers answers"),
        (("MODEL", "--initial-peers", "nonsense"), "is no multiaddress"),
        (("./no/such/model", "--initial-peers", NOBODY), "neither a directory nor"),
    ],
)
async def test_a_mistake_is_one_sentence(options: tuple[str, ...], words: str, model: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(ConfigError, match=words) as caught:
        await run_status(parser.parse_args([str(model) if word == "MODEL" else word for word in options]))
    assert "\n" not in str(caught.value)


def test_a_mistake_ends_the_command_with_2(start: Start) -> None:
    code, said, complained = ended(start("./no/such/model", "--initial-peers", NOBODY))
    assert (code, said) == (2, "")
    assert complained.startswith("murmur status: './no/such/model' is neither")
    assert complained.count("\n") == 1


def test_watch_and_check_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["model", "--initial-peers", NOBODY, "--watch", "--check"])
    assert "not allowed with" in capsys.readouterr().err
