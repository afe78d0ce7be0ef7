"""The architecture as rules over source: arrows, homes of I/O libraries, pure modules, sizes, names, maps.

Every rule is a function from the root of a source tree to sentences about what breaks it; none imports what
it reads. test_architecture.py runs them on the repository, and each on a small tree that breaks it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("bench", "bot", "demo", "server", "storage", "swarm")

MAY_IMPORT = {
    "bench": set(PACKAGES),
    "bot": {"swarm", "storage"},
    "demo": set(PACKAGES) - {"bench"},
    "server": {"swarm"},
    "storage": set(),
    "swarm": set(),
}
SHARED_HALF = {
    "addresses", "allowance", "background", "checkpoint", "dht", "errors", "identity", "incoming",
    "listening", "loop", "outgoing", "ready_file", "say", "signals", "streams", "transport", "wire",
}  # fmt: skip

# Library -> the files or folders that alone import it.
HOMES = {
    "hivemind.p2p": ("swarm/transport.py", "swarm/daemon.py", "swarm/arrivals.py"),
    "hivemind.proto": ("swarm/arrivals.py",),
    "hivemind.utils.multiaddr": ("swarm/addresses.py",),
    "hivemind.dht": ("swarm/dht.py", "swarm/dht_storage.py"),
    "huggingface_hub": ("swarm/checkpoint/hub.py",),
    "bitsandbytes": ("server/quantization.py",),
    "discord": ("bot/on_discord/",),
    "nio": ("bot/on_matrix/",),
    "prometheus_client": ("bot/observing/",),
    "sqlalchemy": ("storage/",),
    "aiosqlite": ("storage/",),
    "alembic": ("storage/",),
}

PURE_MODULES = (
    "bot/commands/catalogue.py",
    "bot/commands/coverage.py",
    "bot/commands/joining.py",
    "bot/commands/numbers.py",
    "bot/commands/registry.py",
    "bot/on_matrix/fields.py",
    "bot/on_matrix/messages.py",
    "bot/on_matrix/people.py",
    "bot/on_matrix/rooms.py",
    "bot/findings.py",
    "bot/measures.py",
    "bot/sending/pacing.py",
    "bot/receiving/listening.py",
    "bot/rendering/*.py",
    "bot/survey.py",
    "bot/once.py",
    "bot/turns/room_line.py",
    "bot/turns/troubles.py",
    "bot/turns/queue.py",
    "bot/vitals.py",
    "bot/words.py",
    "server/batch_cost.py",
    "server/gathering.py",
    "server/recent.py",
    "storage/amounts.py",
    "storage/errors.py",
    "storage/rate.py",
    "storage/token_ids.py",
    "swarm/wire/*.py",
    "swarm/checkpoint/fitting.py",
    "swarm/commands/other_models.py",
    "swarm/commands/status_page.py",
    "swarm/commands/status_report.py",
    "swarm/commands/status_text.py",
    "swarm/errors.py",
    "swarm/handover.py",
    "swarm/health.py",
    "swarm/history.py",
    "swarm/inputs.py",
    "swarm/outbox.py",
    "swarm/patience.py",
    "swarm/replays.py",
    "swarm/routing.py",
    "swarm/sampling.py",
    "swarm/sampling_params.py",
    "swarm/session.py",
    "swarm/session_effects.py",
    "swarm/text_stream.py",
    "server/attention_kernels.py",
    "server/kv_extents.py",
    "server/placement.py",
    "server/replay_log.py",
    "server/scheduler.py",
    "server/session_effects.py",
    "server/session_table.py",
    "server/sessions.py",
    "server/tensor_payloads.py",
    "server/victims.py",
    "server/waiting_line.py",
    "bot/conversation.py",
    "bot/sending/pacing.py",
)
IO_LIBRARIES = {
    "aiohttp", "aiosqlite", "asyncio", "concurrent", "discord", "fcntl", "hivemind", "http", "httpx",
    "huggingface_hub", "io", "mmap", "multiprocessing", "nio", "os", "pathlib", "requests", "safetensors",
    "select", "selectors", "shutil", "signal", "socket", "sqlalchemy", "sqlite3", "ssl", "subprocess", "sys",
    "tempfile", "threading", "urllib", "uvloop",
}  # fmt: skip

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
# "path" or "path:function" -> why it is longer. An entry that is no longer needed must go.
LONGER: dict[str, str] = {
    "server/decode_kernel.py:_attend_part": "a loop of a kernel: its sums stay in registers",
    "server/decode_kernel.py:_attend_split": "a program of a kernel: its sums stay in registers",
    "swarm/session.py": "one state machine: its history, outbox, replays and effects already live apart",
    "server/sessions.py": "one state machine: its log, table and effects already live apart",
    "swarm/session_driver.py": "drives one state machine: what to do lives there, streams and epochs apart",
    "swarm/wire/messages.py": "a list of messages, read from top to bottom",
}

DRAWERS = {"common", "helper", "helpers", "misc", "shared", "util", "utils"}
FAMILIES = re.compile(r"llama|bloom|qwen|mistral|falcon|gemma", re.IGNORECASE)
MAX_MAP_LINES = 100


def source_files(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module of the packages: its path from the root, with slashes, and its syntax tree."""
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            yield file.relative_to(root).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Full dotted names of all that a module imports, also inside functions; `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def launcher_commands(root: Path) -> list[str]:
    listed = re.search(r'^commands="([^"]*)"', (root / "murmur").read_text(encoding="utf-8"), re.MULTILINE)
    return listed[1].split() if listed else []


def against_the_arrows(root: Path) -> list[str]:
    """Imports between packages that no arrow allows."""
    return [
        f"{path} imports {name}"
        for path, tree in source_files(root)
        for name in imported_names(tree)
        if (target := name.partition(".")[0]) in PACKAGES
        if target != (package := path.partition("/")[0]) and target not in MAY_IMPORT[package]
    ]


def servers_use_of_the_client_half(root: Path) -> list[str]:
    """Imports by `server` of what only a client needs."""
    return [
        f"{path} imports {name}"
        for path, tree in source_files(root)
        if path.startswith("server/")
        for name in imported_names(tree)
        if is_within(name, "swarm") and [*name.split("."), ""][1] not in SHARED_HALF
    ]


def strays_of_io_libraries(root: Path) -> list[str]:
    """Imports of a library that does I/O outside its home, and of parts of hivemind that have none."""
    return sorted(
        {
            f"{path} imports {name}"
            for path, tree in source_files(root)
            for name in imported_names(tree)
            if not is_at_home(path, name)
        }
    )


def is_at_home(path: str, name: str) -> bool:
    """Whether the module at `path` may import `name`, as far as HOMES is concerned."""
    homes = [homes for library, homes in HOMES.items() if is_within(name, library)]
    if not homes:
        return not is_within(name, "hivemind")
    return all(any(path == h or (h[-1] == "/" and path.startswith(h)) for h in files) for files in homes)


def io_in_pure_modules(root: Path) -> list[str]:
    """Imports of I/O libraries and of modules of ours that are not pure, and calls of open() and print()."""
    found = []
    for path, tree in source_files(root):
        if not is_pure(path):
            continue
        found += [f"{path} imports {name}" for name in imported_names(tree) if does_io(name)]
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [
            f"{path} calls {f.id}()" for f in calls if isinstance(f, ast.Name) and f.id in {"open", "print"}
        ]
    return found


def is_pure(path: str) -> bool:
    return any(Path(path).match(pattern) for pattern in PURE_MODULES)


def does_io(name: str) -> bool:
    """Whether what a module imports by this name may do I/O; of ours, all that is not pure."""
    package, *parts = name.split(".")
    if package not in PACKAGES:
        return package in IO_LIBRARIES
    modules = ("/".join((package, *parts[:depth])) for depth in range(1, len(parts) + 1))
    return not any(is_pure(f"{module}.py") for module in modules)


def num_lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def too_long(root: Path, longer: dict[str, str]) -> list[str]:
    """Files and functions over the limits without a reason in `longer`, and reasons that are not needed."""
    found = set()
    for path, tree in source_files(root):
        if len((root / path).read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES:
            found.add(path)
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        found |= {f"{path}:{f.name}" for f in functions if num_lines_of(f) > MAX_FUNCTION_LINES}
    unneeded = [
        f"{path} is not too long any more: take it off the list" for path in longer if path not in found
    ]
    return [f"{path} is too long" for path in sorted(found - longer.keys())] + unneeded


def drawers(root: Path) -> list[str]:
    """Modules and folders named after nothing."""
    return [path for path, _ in source_files(root) if DRAWERS & set(re.split(r"[/.]|_", path))]


def family_names(root: Path) -> list[str]:
    """Model families named by code (names and strings, not docstrings) outside the adapters."""
    found = []
    for path, tree in source_files(root):
        if path.startswith(("server/", "swarm/")) and not path.startswith("server/adapters/"):
            found += [f"{path} names {word!r}" for word in words_of_code(tree) if FAMILIES.search(word)]
    return found


def words_of_code(tree: ast.Module) -> Iterator[str]:
    """Names and strings, without docstrings: prose may take a family as its example."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in docstrings:
            yield from (value for _, value in ast.iter_fields(node) if isinstance(value, str))


def wrong_in_the_map(root: Path) -> list[str]:
    """ARCHITECTURE.md: its length, and the paths that it names and that do not exist.

    A path is what stands in backquotes and has a slash or ends in a known suffix.
    """
    text = (root / "ARCHITECTURE.md").read_text(encoding="utf-8")
    num_lines = len(text.splitlines())
    wrong = [f"ARCHITECTURE.md has {num_lines} lines"] if num_lines > MAX_MAP_LINES else []
    paths = re.findall(r"`((?:\./)?[\w.-]+(?:/[\w./*-]*|\.(?:py|md|toml)))`", text)
    return wrong + [
        f"ARCHITECTURE.md names {path}" for path in paths if not any(root.glob(path.removeprefix("./")))
    ]


def commands_that_the_readme_lacks(root: Path) -> list[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    return [name for name in launcher_commands(root) if name != "help" and f"./murmur {name}" not in text]
