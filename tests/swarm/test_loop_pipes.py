"""Commands between pipes: a reader that has seen enough, and input that is no text."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITE_FOREVER = """
import sys
from swarm.background import running
from swarm.loop import run_command

async def main():
    async with running():
        while True:
            sys.stdout.write("a line\\n")
            sys.stdout.flush()

sys.exit(run_command("test", main(), code_if_stopped=130))
"""
WRITE_WITHOUT_FLUSH = """
import asyncio, sys
from swarm.loop import run_command

async def main():
    sys.stdin.read()
    sys.stdout.write("a line")

sys.exit(run_command("test", main(), code_if_stopped=130))
"""
BREAK_ANOTHER_PIPE = """
import sys
from swarm.loop import run_command

async def main():
    raise BrokenPipeError("not one of ours")

sys.exit(run_command("test", main(), code_if_stopped=130))
"""
COMPLAIN = """
import sys
from swarm.errors import ConfigError
from swarm.loop import run_command
from swarm.say import say

async def main():
    say("starting")
    raise ConfigError("a mistake")

sys.exit(run_command("test", main(), code_if_stopped=130))
"""
ECHO = """
import sys
from swarm.loop import forgive_input

forgive_input()
sys.stdout.write(ascii(sys.stdin.read()))
"""


def start(script: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)


def test_a_reader_that_has_seen_enough_is_a_quiet_end() -> None:
    with start(WRITE_FOREVER) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_a_reader_that_left_before_the_last_words_is_a_quiet_end() -> None:
    with start(WRITE_WITHOUT_FLUSH) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_a_pipe_that_breaks_elsewhere_is_told() -> None:
    with start(BREAK_ANOTHER_PIPE) as process:
        _, complained = process.communicate()
        assert process.returncode == 1
        assert b"not one of ours" in complained


def test_input_that_is_no_text_is_read_all_the_same() -> None:
    with start(ECHO) as process:
        said, complained = process.communicate(b"gr\xfc\xdf dich")
        assert (said, complained) == (rb"'gr\ufffd\ufffd dich'", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_mistake_that_nobody_can_be_told_of_has_its_exit_code_all_the_same() -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-c", COMPLAIN], cwd=ROOT, stderr=full, check=False)
    assert ended.returncode == 2
