"""What a process takes of its machine now, as /proc tells it: descriptors by kind, threads, memory."""

import asyncio
import gc
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from tests.end_to_end.processes import Service

_NUMBERED = re.compile(r"(socket|pipe):\[\d+\]")
SPILLED = "a spilled session's file"
SPARE_P2PD_THREADS = 4
LEARNED = ("server.batch_cost._Seen", "server.batch_cost.Moment")
"""What batches cost: one of each for each power of two of rows."""
RENEWED = "swarm.wire.records.ServerRecord"
"""Objects of this kind come and go by themselves: for a while there are an old one and a new one."""


@dataclass(frozen=True)
class Figures:
    """Of one process, at one moment."""

    descriptors: Counter[str]
    """How many open descriptors of each kind: `socket`, `pipe`, `anon_inode:[...]`, or a file's path."""
    num_threads: int
    resident_bytes: int
    private_bytes: int
    """What would be free again if it ended: no page that it shares with another process."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Read them. Raises OSError if there is no such process, or it is somebody else's."""
        kinds = (_kind(link) for link in Path(f"/proc/{pid}/fd").iterdir())
        memory = _memory(pid)
        return cls(
            Counter(kind for kind in kinds if kind),
            len(os.listdir(f"/proc/{pid}/task")),
            memory["Rss"],
            memory["Private_Clean"] + memory["Private_Dirty"],
        )


@dataclass(frozen=True)
class ServiceFigures:
    """Of a process of ours and its p2pd."""

    own: Figures
    p2pd: Figures

    @classmethod
    def of(cls, service: Service) -> Self:
        """Read them. Raises ValueError if it has not exactly one child."""
        (child,) = service.child_pids()
        return cls(Figures.of(service.pid), Figures.of(child))

    @property
    def private_bytes(self) -> int:
        """What both have for themselves."""
        return self.own.private_bytes + self.p2pd.private_bytes

    def more_than(self, before: Self) -> dict[str, int]:
        """Descriptors by kind, and threads, that were not there `before`; nothing if there are none.

        Go keeps the threads that it has once needed, and needs a few more now and then.
        """
        more = {
            f"{kind} of the server": n for kind, n in (self.own.descriptors - before.own.descriptors).items()
        }
        more |= {
            f"{kind} of p2pd": n for kind, n in (self.p2pd.descriptors - before.p2pd.descriptors).items()
        }
        threads = {
            "threads of the server": self.own.num_threads - before.own.num_threads,
            "threads of p2pd": self.p2pd.num_threads - before.p2pd.num_threads - SPARE_P2PD_THREADS,
        }
        return more | {what: number for what, number in threads.items() if number > 0}


def temporary_folders(p2pd: int) -> set[Path]:
    """Where a process has its key and the sockets between it and its p2pd, by the id of the latter.

    Raises OSError if there is no such process, ValueError if it is no p2pd of ours.
    """
    command = Path(f"/proc/{p2pd}/cmdline").read_bytes().decode()
    found = re.findall(r"-(?:id=|listen=/unix)(/[^\0]+)/[^/\0]+", command)
    if len(found) != 2:
        raise ValueError(f"process {p2pd} is no p2pd: {command}")
    return set(map(Path, found))


def _kind(link: Path) -> str:
    """What a descriptor leads to; "" if it was closed while we looked."""
    try:
        target = str(link.readlink())
    except OSError:
        return ""
    if numbered := _NUMBERED.fullmatch(target):
        return numbered[1]
    return SPILLED if "murmur-kv-" in target else target


def _memory(pid: int) -> dict[str, int]:
    """The sums of smaps, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines)}


def own_objects() -> Counter[str]:
    """This process' living objects of our own classes, tasks and tensors, by class."""
    gc.collect()
    return Counter(_name(kind) for each in gc.get_objects() if _is_own(kind := type(each)))


def tasks() -> Counter[str]:
    """This loop's tasks, by what they run."""
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_own(kind: type) -> bool:
    is_ours = str(kind.__module__).startswith(("server.", "swarm."))
    return is_ours or issubclass(kind, torch.Tensor | asyncio.Future)
