"""`./murmur bot` as a process of its own, with a configuration in a file, and what it says for tests to read.

It is gone when its block ends, whatever happens there.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from demo.zygote import die_with
from tests.discord_peer import FakeDiscord
from tests.matrix_peer.synapse import Account

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
GONE_S = 60.0
LAST_LETTERS = 3000
AS_IT_IS = (str(ROOT / "murmur"), "bot")
SECRET = "a secret of the operator"


def on_fake(fake: FakeDiscord) -> tuple[str, ...]:
    """The command with which a bot finds a fake where it looks for Discord."""
    return (sys.executable, "-m", "tests.bot.on_discord.redirected", fake.api_url, fake.gateway.url)


def write_secret(path: Path, secret: str) -> Path:
    """A file that nobody else may read."""
    path.write_text(secret)
    path.chmod(0o600)
    return path


def discord_section(folder: Path, fake: FakeDiscord) -> str:
    """What an operator writes of Discord."""
    return f"""
[discord]
enabled = true
token_file = "{write_secret(folder / "token", fake.token)}"
"""


def matrix_section(folder: Path, url: str, account: Account) -> str:
    """What an operator writes of Matrix, where the homeserver does not limit the bot."""
    return f"""
[matrix]
enabled = true
homeserver = "{url}"
user = "{account.user_id}"
password_file = "{write_secret(folder / "password", account.password)}"
store = "{folder / "matrix"}"
store_secret_file = "{write_secret(folder / "secret", SECRET)}"
send_burst = 1000
sends_per_second = 100.0
"""


def write_config(folder: Path, model: Path, peers: Sequence[str], *sections: str) -> Path:
    """A configuration with all files in `folder`, the store as murmur.db; answers leave nothing to chance."""
    return write_secret(
        folder / "config.toml",
        f"""
[bot]
temperature = 0.0
admins = ["@operator:localhost"]
[swarm]
models = ["{model}"]
initial_peers = [{", ".join(f'"{peer}"' for peer in peers)}]
identity_file = "{folder / "bot.key"}"
[storage]
path = "{folder / "murmur.db"}"
[ops]
control_socket = "{folder / "control.sock"}"
drain_seconds = 5
{"".join(sections)}""",
    )


@dataclass
class BotProcess:
    """A bot that was started."""

    process: asyncio.subprocess.Process
    log: Path

    async def until_said(self, words: str) -> None:
        """Wait until it has logged that."""
        async with asyncio.timeout(WITHIN_S):
            while words not in self.log.read_text():
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    async def complaint(self) -> str:
        """Its last line, once it has ended with 2; nobody has seen a traceback."""
        async with asyncio.timeout(WITHIN_S):
            assert await self.process.wait() == 2, self.log.read_text()
        written = self.log.read_text()
        assert "Traceback" not in written
        lines = [line for line in written.splitlines() if line.startswith("murmur bot: ")]
        assert [*lines] == written.splitlines()[-1:]
        return lines[0].removeprefix("murmur bot: ")

    async def leave(self) -> None:
        """Have it end in peace; nothing has gone wrong in it till then."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GONE_S):
            assert await self.process.wait() == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@asynccontextmanager
async def open_bot_process(
    config: Path, command: Sequence[str] = AS_IT_IS, **variables: str
) -> AsyncIterator[BotProcess]:
    """Start a bot, with more variables in its environment; its log lies beside its configuration."""
    log = config.with_name("bot.log")
    with log.open("w") as stream:
        process = await asyncio.create_subprocess_exec(
            *(*command, "--config", str(config)),
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables,
            stdout=stream,
            stderr=stream,
            preexec_fn=partial(die_with, os.getpid()),
        )
    try:
        yield BotProcess(process, log)
    except BaseException as error:
        error.add_note(log.read_text()[-LAST_LETTERS:])
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
