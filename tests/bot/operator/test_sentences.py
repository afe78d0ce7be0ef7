"""What an admin does wrong is told in the same sentence in a room and on the command line."""

import asyncio
from pathlib import Path

import pytest

from bot.commands.catalogue import COMMANDS
from bot.commands.naming import Mistaken
from bot.commands.registry import Mistake
from bot.control import open_control
from bot.operator.calling import call
from bot.operator.command import run_operator
from tests.bot.operator.test_command import write_config
from tests.bot.test_access import BOB, BOSS, asks, order
from tests.bot.world import World, open_world

BOB_ID, BOSS_ID = BOB.external_id, BOSS.external_id
WRONG = (
    "admin allow bob",
    "admin allow @bob",
    "admin allow ``",
    f"admin allow {'x' * 300}",
    "admin deny bob",
    "admin deny <@&>",
    f"admin deny {BOSS_ID}",
    "admin ban bob",
    "admin ban !room:example.org",
    f"admin ban {BOSS_ID}",
    *(f"admin ban {BOB_ID} {hours}" for hours in ("0", "-1", "1.5", "soon", "90000000", "²", "9" * 400)),
    "admin unban example.org",
    "admin unban @nobody:example.org",
    "admin grant bob 5",
    *(f"admin grant {BOB_ID} {credits}" for credits in ("0", "many", "1,5", "1e3", "--5", "9" * 30)),
    f"admin grant {BOB_ID} 999999999999",
)
"""They do not lack anything: what is missing argparse tells in its own words."""
WRONG_TO_A_BOT = tuple(f"admin kill {number}" for number in ("0", "-1", "one", "7", "9" * 30))
"""Without one that runs they make no sense on the command line."""


async def in_a_room(world: World, line: str) -> str:
    read = COMMANDS.read(line, "!", is_admin=True)
    assert not isinstance(read, Mistake), line
    return await order(world, read.command, **read.arguments)


async def through_the_control_socket(socket: Path, line: str) -> str:
    first, second, number = line.split()
    with pytest.raises(Mistaken) as wrong:
        await call(socket, f"{first} {second}", {"session": number})
    return str(wrong.value)


def on_the_command_line(config: Path, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    command, rest = line.split()[:2], line.split()[2:]
    assert run_operator([*command, "--config", str(config), "--", *rest], {}) == 2, line
    output, errors = capsys.readouterr()
    assert (output, len(errors.splitlines())) == ("", 1), line
    return errors.removeprefix(f"murmur {' '.join(command)}: ").rstrip("\n")


def test_wrong_input_gets_the_same_sentence_in_a_room_and_on_the_command_line(
    tmp_path: Path, store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def say_all() -> dict[str, str]:
        async with open_world(store_path, admins=(BOSS_ID,)) as world:
            assert await asks(world, BOB)
            return {line: await in_a_room(world, line) for line in WRONG}

    said = asyncio.run(say_all())
    config = write_config(tmp_path, store_path)
    assert said == {line: on_the_command_line(config, line, capsys) for line in WRONG}
    assert [line for line, sentence in said.items() if not sentence.endswith(".")] == []
    assert len(set(said.values())) >= 10, "they are not all told the same"


async def test_wrong_sessions_are_told_in_the_same_sentence_through_the_control_socket(
    tmp_path: Path, store_path: Path
) -> None:
    socket = tmp_path / "control.sock"
    async with open_world(store_path, admins=(BOSS_ID,)) as world, open_control(socket, world.core.commands):
        said = {line: await in_a_room(world, line) for line in WRONG_TO_A_BOT}
        assert said == {line: await through_the_control_socket(socket, line) for line in WRONG_TO_A_BOT}
    assert {sentence.partition(" ")[0] for sentence in said.values()} == {"session", "There"}
