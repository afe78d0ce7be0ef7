"""The repository keeps its architecture's rules, and each rule can fail: one that cannot checks nothing."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from tests.architecture import (
    LONGER,
    against_the_arrows,
    commands_that_the_readme_lacks,
    drawers,
    family_names,
    imported_names,
    io_in_pure_modules,
    launcher_commands,
    servers_use_of_the_client_half,
    source_files,
    strays_of_io_libraries,
    too_long,
    wrong_in_the_map,
)

REPOSITORY = Path(__file__).resolve().parent.parent


def test_arrows_between_packages_point_one_way() -> None:
    assert against_the_arrows(REPOSITORY) == []


def test_a_server_uses_only_the_shared_half_of_swarm() -> None:
    assert servers_use_of_the_client_half(REPOSITORY) == []


def test_each_io_library_is_imported_in_one_place() -> None:
    assert strays_of_io_libraries(REPOSITORY) == []


def test_pure_modules_do_no_io() -> None:
    assert io_in_pure_modules(REPOSITORY) == []


def test_files_and_functions_are_short_or_have_a_reason() -> None:
    assert too_long(REPOSITORY, LONGER) == []
    assert all(LONGER.values())


def test_no_module_is_a_drawer() -> None:
    assert drawers(REPOSITORY) == []


def test_only_adapters_know_model_families() -> None:
    assert family_names(REPOSITORY) == []


def test_the_map_is_short_and_names_what_exists() -> None:
    assert wrong_in_the_map(REPOSITORY) == []


def test_the_readme_names_every_command() -> None:
    assert len(launcher_commands(REPOSITORY)) > 10
    assert commands_that_the_readme_lacks(REPOSITORY) == []


def names_that_transformers_lacks(root: Path) -> list[str]:
    """What is imported from there and is not there: mypy does not look, and some names only mypy imports."""
    imported = {name for _, tree in source_files(root) for name in imported_names(tree)}
    return [name for name in sorted(imported) if name.startswith("transformers.") and not is_there(name)]


def is_there(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    with suppress(ModuleNotFoundError):
        return hasattr(import_module(module), attribute) or bool(import_module(name))
    return False


def test_what_is_imported_from_transformers_is_there() -> None:
    assert names_that_transformers_lacks(REPOSITORY) == []


def too_long_without_reasons(root: Path) -> list[str]:
    return too_long(root, {})


LONG_FUNCTION = "def f() -> None:\n" + "    pass\n" * 41
BREAKING_TREES: list[tuple[Callable[[Path], list[str]], str, str]] = [
    (against_the_arrows, "swarm/generate.py", "from bot.reply import answer"),
    (against_the_arrows, "storage/quotas.py", "def f() -> None:\n    import swarm.errors"),
    (against_the_arrows, "server/forwarding.py", "import storage.quotas"),
    (against_the_arrows, "bot/reply.py", "import demo"),
    (servers_use_of_the_client_half, "server/forwarding.py", "from swarm.session import Session"),
    (servers_use_of_the_client_half, "server/forwarding.py", "from swarm import routing"),
    (servers_use_of_the_client_half, "server/forwarding.py", "import swarm"),
    (strays_of_io_libraries, "swarm/session.py", "from hivemind.p2p import P2P"),
    (strays_of_io_libraries, "swarm/transport.py", "from hivemind.dht import DHTNode"),
    (strays_of_io_libraries, "server/executor.py", "import bitsandbytes as bnb"),
    (strays_of_io_libraries, "bot/reply.py", "import discord.ext.commands"),
    (io_in_pure_modules, "swarm/wire/blocks.py", "import asyncio"),
    (io_in_pure_modules, "server/placement.py", "from os import open"),
    (io_in_pure_modules, "swarm/routing.py", "text = open('records').read()"),
    (io_in_pure_modules, "server/session_table.py", "from server.rooms import Rooms"),
    (io_in_pure_modules, "swarm/outbox.py", "from swarm import transport"),
    (io_in_pure_modules, "swarm/replays.py", "import swarm"),
    (too_long_without_reasons, "swarm/session.py", LONG_FUNCTION),
    (too_long_without_reasons, "swarm/session.py", "pass\n" * 301),
    (names_that_transformers_lacks, "swarm/text.py", "from transformers import PreTrainedTokeniser"),
    (names_that_transformers_lacks, "swarm/text.py", "from transformers.no_module import Cache"),
    (drawers, "swarm/utils.py", ""),
    (drawers, "server/common/blocks.py", ""),
    (drawers, "server/cache_helpers.py", ""),
    (family_names, "server/block_loader.py", "if model_type == 'bloom': pass"),
    (family_names, "swarm/model_ends.py", "from transformers import LlamaConfig"),
    (family_names, "swarm/model_ends.py", "class QwenEnds: pass"),
    (wrong_in_the_map, "ARCHITECTURE.md", "see `swarm/nowhere.py`"),
    (wrong_in_the_map, "ARCHITECTURE.md", "\n" * 101),
]


@pytest.mark.parametrize(("rule", "path", "source"), BREAKING_TREES)
def test_each_rule_can_fail(
    tmp_path: Path, rule: Callable[[Path], list[str]], path: str, source: str
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    assert rule(tmp_path) != []


def test_a_reason_that_is_no_longer_needed_is_refused(tmp_path: Path) -> None:
    assert too_long(tmp_path, {"swarm/session.py": "was long"}) != []


def test_a_command_that_the_readme_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "murmur").write_text('commands="demo serve"\n', encoding="utf-8")
    (tmp_path / "README.md").write_text("Run ./murmur demo.\n", encoding="utf-8")
    assert commands_that_the_readme_lacks(tmp_path) == ["serve"]


def test_prose_may_name_a_family(tmp_path: Path) -> None:
    (tmp_path / "swarm").mkdir()
    (tmp_path / "swarm/text.py").write_text('"""As in LLaMA."""\n# and BLOOM\n', encoding="utf-8")
    assert family_names(tmp_path) == []
