"""What goes away by itself does not end the bot for good: it waits, or its supervisor starts it again."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.observing.systemd import Notifier
from bot.observing.watching import Watch
from bot.operating import ended_with_a_sentence, join_patiently
from storage.errors import StorageError, StoreBusy, StoreInUse, StoreTooNew, StoreUnusable
from swarm.background import running
from swarm.errors import ConfigError, MurmurError, NobodyAnswers, SwarmError
from tests.bot.clock import FakeClock, settle

ENDS = """
from bot.operating import ended_with_a_sentence
from storage.errors import StoreBusy
from swarm.loop import run_command
import sys

async def main():
    with ended_with_a_sentence():
        raise StoreBusy("the store is locked")

sys.exit(run_command("bot", main(), code_if_stopped=0))
"""


class Peers:
    """Initial peers that answer after `errors`."""

    def __init__(self, *errors: MurmurError) -> None:
        self.errors = list(errors)
        self.num_tries = 0
        self.is_joined = False

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Any]:
        self.num_tries += 1
        if self.errors:
            raise self.errors.pop(0)
        self.is_joined = True
        yield self
        self.is_joined = False


async def test_peers_that_do_not_answer_yet_are_waited_for_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, peers = FakeClock(), Peers(*[NobodyAnswers("none answers")] * 6)
    watch = Watch(Notifier())

    async def stay() -> None:
        async with join_patiently(peers.join, clock, watch.note_waiting):
            await clock.sleep(1000)

    async with running(stay()):
        await settle()
        for seconds, num_tries in ((4, 1), (1, 2), (15, 3), (30, 4), (60, 5), (60, 6)):
            await clock.advance(seconds)
            assert (peers.num_tries, peers.is_joined) == (num_tries, False)
            assert (await watch.look()).problems == ("the bot waits for its swarm: none answers",)
        await clock.advance(60)
        assert peers.is_joined
        assert (await watch.look()).problems == ("the bot is starting: it loads its model and connects",)
        await clock.advance(1000)
        assert not peers.is_joined
    assert caplog.records[0].message == "none answers; I try again in 5 s"
    assert len(caplog.records) == 6


async def test_what_the_operator_has_to_mend_is_not_waited_for() -> None:
    peers = Peers(ConfigError("that is no address"))
    with pytest.raises(ConfigError, match="that is no address"):
        async with join_patiently(peers.join, FakeClock()):
            pass
    assert peers.num_tries == 1


@pytest.mark.parametrize("error", [StoreBusy("it is locked"), SwarmError("p2pd ended")])
def test_what_passes_ends_the_bot_with_a_sentence_and_status_1(error: Exception) -> None:
    with pytest.raises(SystemExit) as ended, ended_with_a_sentence():
        raise error
    assert ended.value.code == f"murmur bot: {error}"


@pytest.mark.parametrize("kind", [StoreInUse, StoreTooNew, StoreUnusable])
def test_a_store_that_has_to_be_mended_is_a_mistake(kind: type[StorageError]) -> None:
    with pytest.raises(ConfigError, match="look at it"), ended_with_a_sentence():
        raise kind("look at it")


@pytest.mark.slow
def test_who_started_the_bot_reads_one_sentence_and_gets_status_1() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "murmur bot: the store is locked\n")
