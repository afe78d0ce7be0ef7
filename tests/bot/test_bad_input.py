"""What operators get wrong, and what happens to their machines: one sentence that says what to do.

`./murmur bot` runs as a process and ends with 2. What it was told before is there once that is mended.
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from storage.database import open_database
from storage.inbox import receive, waiting
from tests.bot.bot_process import WITHIN_S, BotProcess, on_fake, open_bot_process
from tests.bot.on_discord.conftest import furnished
from tests.bot.platform import ADA, said
from tests.discord_peer import PRIVILEGED, FakeDiscord, Intent, Message
from tests.discord_peer.conftest import fake_discord
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model
from tests.end_to_end.small_disks import with_small_disks
from tests.end_to_end.swarm import Offer, Swarm, open_swarm

ROOT = Path(__file__).parents[2]
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def write_config(
    folder: Path,
    *,
    model: str = "./demo/model",
    peers: str = NOBODY,
    store: Path | None = None,
    more: str = "",
) -> Path:
    """A configuration for Discord; nobody answers at its peer unless one is named."""
    config = folder / "config.toml"
    config.write_text(f"""
[bot]
admins = ["5"]
[discord]
enabled = true
token_env = "BOT_TOKEN"
[swarm]
models = ["{model}"]
initial_peers = [{peers if peers.startswith('"') else f'"{peers}"'}]
identity_file = "{folder / "bot.key"}"
[storage]
path = "{store or folder / "murmur.db"}"
[ops]
control_socket = "{folder / "control.sock"}"
{more}
""")
    config.chmod(0o600)
    return config


def complaint(config: Path, *before: str) -> str:
    """What `./murmur bot` says, which must be one sentence, and its end."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "bot", "--config", str(config)],
        cwd=ROOT,
        env=os.environ | {"BOT_TOKEN": "a token"},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    (line,) = lines
    return line.removeprefix("murmur bot: ")


@pytest.fixture
async def told(store_path: Path) -> Path:
    """A store in which somebody's words wait for their answer."""
    async with open_database(store_path) as store:
        await store.write(receive, "discord", [said("hello", "1", author=ADA, sent_ms=0)], 0)
    return store_path


async def assert_nothing_is_lost(path: Path) -> None:
    async with open_database(path) as store:
        (kept,) = await store.read(waiting, "discord")
        assert kept.event.event_id == "1"


def test_behaviour_30_toml_that_is_broken_is_told_with_its_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, more="port = = 1")
    line = config.read_text().splitlines().index("port = = 1") + 1
    assert complaint(config) == f"{config} is not TOML: line {line}, column 8: invalid value"


async def test_behaviour_30_a_store_of_a_newer_version_is_told_and_left_as_it_is(
    tmp_path: Path, told: Path
) -> None:
    def revise(number: str) -> None:
        with sqlite3.connect(told) as store:
            (before,) = store.execute("SELECT version_num FROM alembic_version").fetchone()
            store.execute("UPDATE alembic_version SET version_num = ?", (number,))
        store.close()
        revisions.append(before)

    revisions: list[str] = []
    revise("9999")
    sentence = await asyncio.to_thread(complaint, write_config(tmp_path, store=told))
    assert (
        sentence == f"{told} was written by a newer Murmur (schema 9999): install that, or restore a backup"
    )
    revise(revisions[0])
    await assert_nothing_is_lost(told)


def read_only(path: Path) -> tuple[str, ...]:
    """A command under which `path` may not be written, whoever one is. Skips the test where there is none."""
    command = ("unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, str(path))
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs user namespaces")
    return command


@pytest.mark.slow
async def test_a_store_that_may_not_be_written_is_told(tmp_path: Path, told: Path) -> None:
    config = write_config(tmp_path, store=told)
    sentence = await asyncio.to_thread(complaint, config, *read_only(told))
    assert sentence == f"{told}: it may not be written: check who owns it"
    await assert_nothing_is_lost(told)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["full", "small"])
def test_a_full_disk_is_told(tmp_path: Path, disk: str) -> None:
    disks = tmp_path / "disks"
    for name in ("full", "small"):
        (disks / name).mkdir(parents=True)
    within = with_small_disks(disks)
    if not within:
        pytest.skip("no disk can be made small: user namespaces are not allowed here")
    path = disks / disk / "murmur.db"
    sentence = complaint(write_config(tmp_path, store=path), *within)
    wanted = {
        "full": f"{path}.key cannot be read or written: No space left on device",
        "small": f"{path}: the disk is full: free some space",
    }
    assert sentence == wanted[disk]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A small random model with a tokenizer."""
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


@asynccontextmanager
async def running_bot(
    fake: FakeDiscord, swarm: Swarm, folder: Path, token: str = ""
) -> AsyncIterator[BotProcess]:
    """A bot on a fake Discord and a swarm of this process; it is gone when the block ends."""
    peers = ", ".join(f'"{peer}"' for peer in swarm._initial_peers)
    config = write_config(folder, model=str(swarm.model.path), peers=peers)
    async with open_bot_process(config, on_fake(fake), BOT_TOKEN=token or fake.token) as bot:
        yield bot


WRONG_TOKEN = (
    "Discord does not know this token: copy it anew from https://discord.com/developers/applications"
)


@pytest.mark.slow
async def test_a_wrong_token_is_told(small: SmallModel, tmp_path: Path) -> None:
    async with (
        fake_discord() as fake,
        open_swarm(small) as swarm,
        running_bot(fake, swarm, tmp_path, token="no token of anybody") as bot,
    ):
        sentence = await bot.complaint()
        assert sentence.startswith(WRONG_TOKEN)
        assert "no token of anybody" not in bot.log.read_text()


@pytest.mark.slow
async def test_a_revoked_token_is_told_and_what_was_said_is_answered_with_the_next(
    small: SmallModel, tmp_path: Path
) -> None:
    async with fake_discord() as fake, open_swarm(small, Offer(0, 6)) as swarm:
        place = furnished(fake)

        def answers() -> list[Message]:
            shown = place.channel.by(fake.bot)
            return [it for it in shown if "Retry" in [button["label"] for button in it.buttons]]

        async with running_bot(fake, swarm, tmp_path) as bot:
            await bot.until_said("connected to Discord")
            place.alice.says(place.channel, "hello", mentions=[fake.bot])
            await fake.until(lambda: len(answers()) == 1, WITHIN_S)
            fake.world.token = "another"
            await fake.drop_gateway(resume=True)
            assert (await bot.complaint()).startswith(WRONG_TOKEN)
        place.alice.says(place.channel, "are you there?", mentions=[fake.bot])
        async with running_bot(fake, swarm, tmp_path, token="another"):
            await fake.until(lambda: len(answers()) == 2, WITHIN_S)


@pytest.mark.slow
async def test_without_the_intent_the_bot_says_so_and_answers_mentions(
    small: SmallModel, tmp_path: Path
) -> None:
    async with (
        fake_discord(approved=PRIVILEGED & ~Intent.MESSAGE_CONTENT) as fake,
        open_swarm(small, Offer(0, 6)) as swarm,
        running_bot(fake, swarm, tmp_path) as bot,
    ):
        place = furnished(fake)
        await bot.until_said("has not granted the message content intent")
        await bot.until_said("connected to Discord")
        place.alice.says(place.channel, "hello", mentions=[fake.bot])
        await fake.until(lambda: place.channel.by(fake.bot), WITHIN_S)
        assert bot.process.returncode is None
        assert "Traceback" not in bot.log.read_text()
