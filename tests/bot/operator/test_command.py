"""`./murmur admin` and `./murmur quota`: twins of admins' commands, with a running bot and without one."""

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.commands.catalogue import COMMANDS
from bot.control import open_control
from bot.operator.actions import ALL_ACTIONS
from bot.operator.command import run_operator
from bot.operator.parsing import MORE, QUOTA, TWINS, parse
from storage.database import open_database
from storage.lock import instance_lock
from tests.bot.test_access import ADA, BOB, asks
from tests.bot.world import open_world

ROOT = Path(__file__).parents[3]
STEP_S = 60
BOB_ID = BOB.external_id
Run = Callable[..., tuple[int, str, str]]


def write_config(folder: Path, store: Path) -> Path:
    """A configuration without a platform: a bot needs one, its operator does not."""
    config = folder / "config.toml"
    config.write_text(
        f'[storage]\npath = "{store}"\n[ops]\ncontrol_socket = "{folder / "control.sock"}"\n'
        '[bot]\nadmins = ["@boss:example.org"]\n'
    )
    config.chmod(0o600)
    return config


@pytest.fixture
def config(tmp_path: Path, store_path: Path) -> Path:
    return write_config(tmp_path, store_path)


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        where = ["--config", str(config)] if len(arguments) > 1 else []
        try:
            status = run_operator([*arguments, *where], {})
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    return run


async def start(config: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command line in a process of its own, beside this one."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "bot", *arguments, "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- which commands there are -----------------------------------------------------------------------------


def test_each_of_admins_commands_has_a_twin_that_takes_the_same_arguments() -> None:
    rows = [it for it in COMMANDS if it.who == "admin"]
    assert len(rows) >= 9
    for row in rows:
        values = {it.name: f"a {it.name}" for it in row.arguments}
        parsed = parse([*row.name.split(), *values.values()])
        assert {name: getattr(parsed, name) for name in values} == values
        assert parsed.command == row.name
        assert parsed.command in ALL_ACTIONS


def test_help_has_an_example_of_every_command(run: Run) -> None:
    for group, commands in (("admin", (*TWINS, *MORE)), ("quota", QUOTA)):
        status, text, _ = run(group, "--help")
        assert status == 0
        assert [it.name for it in commands if f"  ./murmur {it.name}" not in text] == []
        for command in commands:
            status, text, _ = run(*command.name.split(), "--help")
            assert (status, f"./murmur {command.example or command.name}" in text) == (0, True)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("admin", "the following arguments are required: COMMAND"),
        ("admin bann @a:b", "invalid choice: 'bann'"),
        ("admin ban", "the following arguments are required: user"),
        ("admin ban bob", "`bob` names nobody"),
        ("admin ban @bob:example.org soon", "hours is a whole number"),
        ("admin unban @bob:example.org", "is not ignored"),
        ("admin kill 7", "no bot listens on"),
        ("admin drain", "no bot listens on"),
        ("admin forget @bob:example.org", "add --yes if you are sure"),
        ("admin forget @bob:example.org --yes", "has not used the bot"),
        ("admin export @bob:example.org", "has not used the bot"),
        ("admin invite-url", "[discord] needs a token"),
        ("admin ban @boss:example.org", "is an admin"),
        ("quota show @bob:example.org", "has not used the bot"),
        ("quota grant @bob:example.org many", "credits is a whole number"),
        ("quota set @bob:example.org -1", "credits is a whole number"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_status_2(run: Run, line: str, sentence: str) -> None:
    status, output, errors = run(*line.split())
    assert (status, output, len(errors.splitlines())) == (2, "", 1)
    assert sentence in errors
    assert errors.startswith("murmur")


def test_a_store_that_is_not_there_is_not_made(run: Run, store_path: Path) -> None:
    store_path.unlink()
    for line in ("quota show @bob:example.org", "admin ban @bob:example.org", "admin backup copy"):
        status, _, errors = run(*line.split())
        assert (status, "there is no store" in errors) == (2, True)
    assert not store_path.exists()


# --- without a bot ------------------------------------------------------------------------------------------


def test_without_a_bot_commands_are_carried_out_on_its_store(run: Run) -> None:
    assert run("quota", "grant", BOB_ID, "500") == (
        0, f"500 credits given to `{BOB_ID}`, who has 20500 now.\n", "",
    )  # fmt: skip
    assert run("quota", "set", BOB_ID, "7")[1] == f"`{BOB_ID}` has 7 credits now.\n"
    assert run("admin", "grant", BOB_ID, "-7")[1] == f"7 credits taken from `{BOB_ID}`, who has 0 now.\n"
    assert json.loads(run("quota", "show", BOB_ID, "--json")[1]) == [
        {"user": f"matrix:{BOB_ID}", "balance": 0, "held": 0, "used_today": 0}
    ]
    assert run("admin", "ban", BOB_ID)[1] == f"`{BOB_ID}` is ignored for good.\n"
    assert run("admin", "unban", BOB_ID)[1] == f"`{BOB_ID}` is heard again.\n"
    run("admin", "deny", "example.com")
    deeds = json.loads(run("admin", "audit", "--json")[1])
    assert [(it["who"], it["did"]) for it in deeds] == [
        ("operator", did) for did in ("deny", "unban", "ban", "grant", "set", "grant")
    ]
    assert run("admin", "sessions")[1] == "There are no sessions.\n"
    assert run("admin", "sessions", "--json")[1] == "[]\n"


@pytest.mark.slow
async def test_what_was_done_without_a_bot_holds_when_it_runs(config: Path, store_path: Path) -> None:
    status, _, errors = await start(config, "admin", "ban", BOB_ID)
    assert status == 0, errors
    async with open_world(store_path) as world:
        assert not await asks(world, BOB)
        assert await asks(world, ADA)


@pytest.mark.slow
async def test_forget_and_export_without_a_bot(config: Path, store_path: Path) -> None:
    async with open_world(store_path) as world:
        await world.ask("my secret question", author=BOB)
        await world.store.write(_as_matrix)
    status, output, _ = await start(config, "admin", "export", BOB_ID)
    assert status == 0
    assert json.loads(output)["turns"][0]["prompt"] == "my secret question"
    file = config.parent / "bob.json"
    assert (await start(config, "admin", "export", BOB_ID, "--output", str(file)))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["account"]["external_id"] == BOB_ID
    assert (await start(config, "admin", "export", BOB_ID, "--output", str(file)))[0] == 2
    status, output, errors = await start(config, "admin", "forget", BOB_ID, "--yes")
    assert (status, output, errors) == (0, f"All that was kept of `{BOB_ID}` is deleted.\n", "")
    for left in store_path.parent.glob("murmur.db*"):
        assert b"secret question" not in left.read_bytes(), left.name


def _as_matrix(connection: object) -> None:
    from sqlalchemy import update

    from storage.schema import account

    connection.execute(update(account).values(platform="matrix"))  # type: ignore[attr-defined]


# --- beside a bot -------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_what_a_bot_has_in_memory_is_changed_in_it_and_data_beside_it(
    config: Path, store_path: Path
) -> None:
    control = config.parent / "control.sock"
    async with open_world(store_path) as world, open_control(control, world.core.commands):
        assert (await start(config, "admin", "ban", BOB_ID))[0] == 0
        assert not await asks(world, BOB), "at once"
        assert (await start(config, "quota", "set", ADA.external_id, "77"))[0] == 0
        assert "has 77 credits left" in (await start(config, "quota", "show", ADA.external_id))[1]
        assert f"operator ban matrix:{BOB_ID} for good" in (await start(config, "admin", "audit"))[1]
        status, output, _ = await start(config, "admin", "drain")
        assert (status, "the bot stops" in output) == (0, True)
        assert world.core.must_leave.is_set()


@pytest.mark.slow
async def test_a_bot_that_runs_but_does_not_listen_is_not_gone_around(config: Path, store_path: Path) -> None:
    with instance_lock(store_path):
        status, _, errors = await start(config, "admin", "ban", BOB_ID)
        assert (status, len(errors.splitlines())) == (2, 1)
        assert "is in use by another bot" in errors
        assert "nobody listens on" in errors
        assert (await start(config, "quota", "grant", BOB_ID, "5"))[0] == 0


@pytest.mark.slow
async def test_a_backup_is_complete_and_its_owners_alone(config: Path, store_path: Path) -> None:
    copy = config.parent / "copy.db"
    async with open_world(store_path) as world:
        await asks(world, BOB)
        assert (await start(config, "admin", "backup", str(copy)))[0] == 0
    for file in (copy, copy.with_name("copy.db.key")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with open_database(copy) as store:
        assert await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM turn").scalar()) == 1
    status, _, errors = await start(config, "admin", "backup", str(copy))
    assert (status, "is there already" in errors) == (2, True)
    assert (await start(config, "admin", "backup", str(copy), "--replace"))[0] == 0
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["backup"], ["export", BOB_ID, "--output"]])
@pytest.mark.parametrize("suffix", ["", ".key", ".lock", "-wal"])
async def test_no_file_takes_the_place_of_what_the_bot_uses(
    config: Path, store_path: Path, suffix: str, command: list[str]
) -> None:
    async with open_world(store_path) as world:
        await asks(world, BOB)
        target = store_path.with_name(store_path.name + suffix)
        target.touch()
        before = target.stat().st_ino
        status, _, errors = await start(config, "admin", *command, str(target), "--replace")
        assert (status, "belongs to the store that the bot uses" in errors) == (2, True)
        assert target.stat().st_ino == before


def test_a_backup_onto_a_folder_leaves_nothing_behind(run: Run, tmp_path: Path, store_path: Path) -> None:
    assert run("quota", "grant", BOB_ID, "5")[0] == 0
    (folder := tmp_path / "copies").mkdir()
    status, _, errors = run("admin", "backup", str(folder), "--replace")
    assert (status, errors.endswith("is a folder: name a file in it\n")) == (2, True)
    assert not folder.with_name("copies.key").exists()


@pytest.mark.parametrize("group", ["admin", "quota"])
def test_the_configuration_may_be_named_before_the_command(
    config: Path, capsys: pytest.CaptureFixture[str], group: str
) -> None:
    line = [group, "--config", str(config.with_name("none.toml")), "grant", BOB_ID, "5"]
    assert run_operator(line, {}) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"murmur {group} grant: there is no {config.with_name('none.toml')}")


def test_a_ban_for_no_hours_is_not_one_for_good(run: Run) -> None:
    status, _, errors = run("admin", "ban", BOB_ID, "")
    assert (status, "hours is a whole number" in errors) == (2, True)


def test_secrets_of_platforms_are_not_needed(run: Run, config: Path) -> None:
    config.write_text(
        config.read_text()
        + '[discord]\nenabled = true\n[swarm]\nmodels = ["a/b"]\n'
        + 'initial_peers = ["/ip4/127.0.0.1/tcp/9/p2p/12D3KooWPeer"]\n'
    )
    assert run("quota", "grant", BOB_ID, "5")[0] == 0
    status, _, errors = run("admin", "invite-url")
    assert (status, "[discord] needs a token" in errors) == (2, True)


@pytest.mark.slow
def test_who_has_to_wait_is_told_that_it_goes_on(config: Path, store_path: Path) -> None:
    line = [sys.executable, "-m", "bot", "quota", "set", BOB_ID, "5", "--config", str(config)]
    writer = sqlite3.connect(store_path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "murmur quota set: at work\n"
            writer.execute("ROLLBACK")
            output, errors = process.communicate(timeout=STEP_S)
        finally:
            writer.close()
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert output == f"`{BOB_ID}` has 5 credits now.\n"


def test_small_commands_begin_without_what_takes_seconds_to_load() -> None:
    code = "import sys, bot.operator.command; print({'torch', 'transformers', 'hivemind'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=STEP_S, check=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"
