"""The whole path, all of it real processes: a mention is answered, and a server is killed while it is read.

The bot is `./murmur bot` with a configuration in a file. On Discord it talks to a Discord of the project's
own, on Matrix to a real Synapse.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bot.config.models import NOTICE
from bot.rendering.preview import MARK
from tests.bot.bot_process import (
    AS_IT_IS,
    ROOT,
    discord_section,
    matrix_section,
    on_fake,
    open_bot_process,
    write_config,
)
from tests.bot.on_discord.conftest import furnished
from tests.discord_peer.conftest import fake_discord
from tests.end_to_end.linked import Chain, open_chain
from tests.end_to_end.processes import Forge, open_process_swarm
from tests.end_to_end.readers import DiscordReader, MatrixReader, Reader, Shown
from tests.matrix_peer.human import NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = ROOT / "demo" / "model"
SPANS = ("0:4", "4:8")
QUESTION = "What exactly happens after I send you a message?"
LEAST_LETTERS = 150
DELAY_S, LATER_S = 0.25, 0.5
"""Of each link until a part is shown, and then: a token takes two of them, the answer most of a minute.

It does not grow at once by so much that a heartbeat would seem to be missing."""
WITHIN_S = 120.0
TOLD_OF_LOSS = re.compile(r"\(a server was lost; I went on after \d+ s\)\n?")

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], what: str) -> T:
    """Look until there is something."""
    deadline_s = time.monotonic() + WITHIN_S
    while not (found := await look()):
        assert time.monotonic() < deadline_s, f"not within {WITHIN_S} s: {what}"
        await asyncio.sleep(0.05)
    return found


class Books:
    """The store of a bot that runs, only read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, query: str) -> list[Any]:
        """The rows of a query."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10)) as store:
            return store.execute(query).fetchall()

    def states(self) -> list[tuple[str, bool]]:
        """How each turn is, and whether all of it is shown, in the order in which they were asked."""
        return self.ask("SELECT state, delivered_at IS NOT NULL FROM turn ORDER BY asked_at")

    def charges(self) -> list[tuple[str, int, int]]:
        """What each turn has come to and cost: once for each time that it was paid for."""
        return self.ask(
            "SELECT answer, new_tokens, -ledger.amount FROM turn JOIN ledger ON ledger.turn_id = turn.id"
            " ORDER BY asked_at"
        )

    def assert_balanced(self) -> None:
        """Nothing is held any more, and each has what the ledger says; nothing was taken but for turns."""
        assert self.ask("SELECT * FROM hold") == []
        assert self.ask("SELECT id FROM ledger WHERE amount < 0 AND turn_id IS NULL") == []
        sums = self.ask(
            "SELECT account_id, sum(amount), 0 FROM ledger GROUP BY account_id ORDER BY account_id"
        )
        assert self.ask("SELECT id, balance, held FROM account ORDER BY id") == sums


async def answer_of(reader: Reader, question: str) -> Shown:
    """The one answer to a question, beside which there is at most the notice that a place gets."""
    shown = await reader.shown()
    assert {message.below for message in shown} == {question}
    answers = [message for message in shown if not message.text.startswith(NOTICE)]
    assert len(answers) == 1
    assert len(shown) <= 2
    return answers[0]


def beginning_of(text: str) -> str:
    """What a preview shows of an answer; "" if it is no preview."""
    return text.removesuffix(MARK).rstrip() if text.endswith(MARK) else ""


async def ask_and_read(reader: Reader, books: Books) -> str:
    """Ask, and read the answer; returns all that is shown of it."""
    question = await reader.ask(QUESTION)

    async def is_over() -> bool:
        return books.states() == [("done", True)]

    await until(is_over, "a whole answer")
    return (await answer_of(reader, question)).text


async def ask_and_lose(chain: Chain, lost: int, reader: Reader, books: Books) -> Shown:
    """Ask, and have a server killed once a part of the answer is shown; returns the whole answer."""
    chain.delay(DELAY_S)
    question = await reader.ask(QUESTION)

    async def part() -> str:
        return "".join(beginning_of(message.text) for message in await reader.shown())

    first = await until(part, "a part of an answer")
    chain.delay(LATER_S)
    await chain.start_another(lost)
    assert books.states()[1] == ("running", False), "the answer was written before the server could be killed"
    await chain.kill(lost)
    assert (await part()).startswith(first)
    chain.delay(0.0)

    async def is_over() -> bool:
        return books.states()[1][1]

    await until(is_over, "the answer goes on without the server")
    return await answer_of(reader, question)


async def assert_a_loss_is_not_read(chain: Chain, lost: int, one: Reader, other: Reader, store: Path) -> None:
    """The first asks; the other asks the same and loses a server: both read the same, and pay the same."""
    books = Books(store)
    whole = await ask_and_read(one, books)
    shown = await ask_and_lose(chain, lost, other, books)
    text, num_told = TOLD_OF_LOSS.subn("", shown.text)
    assert (text, num_told <= 1) == (whole, True)
    (answer, num_tokens, cost), again = books.charges()
    assert again == (answer, num_tokens, cost)
    assert whole.startswith(answer.strip())
    assert len(answer) > LEAST_LETTERS
    assert cost > num_tokens > 0
    assert all(text.endswith(MARK) and answer.startswith(beginning_of(text)) for text in shown.before)
    books.assert_balanced()


async def test_a_server_that_is_killed_in_mid_answer_changes_nothing_that_is_read_on_discord(
    forge: Forge, tmp_path: Path
) -> None:
    with open_process_swarm(forge, MODEL) as swarm:
        async with fake_discord() as fake, open_chain(swarm, *SPANS) as chain:
            config = write_config(tmp_path, MODEL, swarm.initial_peers, discord_section(tmp_path, fake))
            place = furnished(fake)
            bob = DiscordReader(fake, place.bob, place.channel)
            alice = DiscordReader(fake, place.alice, fake.channel(place.guild, "another"))
            async with open_bot_process(config, on_fake(fake)) as bot:
                await bot.until_said("connected to Discord")
                await assert_a_loss_is_not_read(chain, 1, bob, alice, tmp_path / "murmur.db")
                await bot.leave()


async def run(*command: str) -> str:
    """Run a command to its end, which must be a good one; returns what it says."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_a_server_that_is_killed_in_mid_answer_changes_nothing_that_is_read_on_matrix(
    synapse: Synapse, new_human: NewHuman, forge: Forge, tmp_path: Path
) -> None:
    account = await asyncio.to_thread(synapse.register, "murmur")
    anna, ben = await new_human("anna"), await new_human("ben")

    async def reader(human: Any, other: Any) -> MatrixReader:
        room_id = await human.create_room(account.user_id, other.user_id)
        await human.wait_for_member(room_id, account.user_id)
        return MatrixReader(human, room_id, account.user_id)

    with open_process_swarm(forge, MODEL) as swarm:
        async with open_chain(swarm, *SPANS) as chain:
            section = matrix_section(tmp_path, synapse.url, account)
            config = write_config(tmp_path, MODEL, swarm.initial_peers, section)
            launcher, _ = AS_IT_IS
            assert "is logged in" in await run(launcher, "matrix", "login", "--config", str(config))
            async with open_bot_process(config) as bot:
                await bot.until_said("ready on matrix")
                one, another = await reader(ben, anna), await reader(anna, ben)
                await assert_a_loss_is_not_read(chain, 0, one, another, tmp_path / "murmur.db")
                await bot.leave()
