"""How somebody adds a server to a swarm: what fits, the very command, and what to know before. Pure."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from bot.commands.coverage import FENCE, blocks
from bot.survey import Survey
from swarm.checkpoint.fitting import DEFAULT_KV_TOKENS, BlockSize, plan_num_blocks

PROCESS_BYTES = 600 << 20
"""What a server's processes take before its first block: 490 MB measured, and a library for quantization."""
MAX_MEMORY_LETTERS = 20
MAX_MEMORY_BYTES = 10**15
NO_MEMORY = "memory is what your machine has free for it, as in `contribute 16GB`."
PLACEHOLDER_PORT = 31330
_MEMORY = re.compile(r"([0-9]{1,7})(?:[.,]([0-9]{1,3}))? ?([mgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"m": 2, "": 3, "g": 3, "t": 4}


def read_memory(text: str) -> int | None:
    """Bytes that somebody typed: `8GB`, `16 GiB`, `24g`, `8` (GB); None if it is no amount of memory."""
    match = _MEMORY.fullmatch(text.strip()) if len(text) <= MAX_MEMORY_LETTERS else None
    if match is None or (match[4] and not match[3]):
        return None
    unit = (1024 if match[4] else 1000) ** _POWERS[match[3].lower()]
    size_bytes = int(float(f"{match[1]}.{match[2] or 0}") * unit)
    return size_bytes if 0 < size_bytes <= MAX_MEMORY_BYTES else None


@dataclass(frozen=True, slots=True)
class Fit:
    """How many blocks fit into somebody's memory, by the quantization that they are held in."""

    num_blocks: Mapping[str, int]

    @property
    def quantization(self) -> str:
        """The first in which any fits: none is the most exact one."""
        return next((kind for kind, number in self.num_blocks.items() if number), "none")

    @property
    def best(self) -> int:
        """How many the command asks for."""
        return self.num_blocks[self.quantization]

    def better(self) -> list[tuple[str, int]]:
        """Quantizations in which still more fit, and how many."""
        found, most = [], self.best
        for kind, number in self.num_blocks.items():
            if number > most:
                found.append((kind, number))
                most = number
        return found


def fit(memory_bytes: int, sizes: Mapping[str, BlockSize], num_blocks: int) -> Fit:
    """What a server would find to fit if so much were free before it starts."""
    free_bytes = memory_bytes - PROCESS_BYTES
    return Fit(
        {
            kind: plan_num_blocks(free_bytes, size, DEFAULT_KV_TOKENS, num_blocks)
            for kind, size in sizes.items()
        }
    )


def least_memory(sizes: Mapping[str, BlockSize]) -> int:
    """Bytes that a machine must have free for one block, in the smallest way to hold it."""
    smallest = min(size.bytes_with(DEFAULT_KV_TOKENS) for size in sizes.values())
    return PROCESS_BYTES + -(-smallest * 10 // 9)


def command(survey: Survey, chosen: Fit | None) -> str:
    """The command line: `chosen` says how many blocks; without it the server takes as many as fit."""
    is_elsewhere = survey.is_folder and survey.reach != "machine"  # where our folders are is of no use there
    model = f"./{survey.report.model}" if is_elsewhere else survey.model
    words = ["./murmur", "serve", model, "--initial-peers", *survey.peers]
    if chosen is not None:
        words += ["--num-blocks", str(chosen.best)]
        if chosen.quantization != "none":
            words += ["--quantization", chosen.quantization]
    if survey.reach == "machine":  # no other machine can come, so none needs to
        words += ["--host-maddrs", "/ip4/127.0.0.1/tcp/0"]
    return shlex.join(words)


def instructions(survey: Survey, memory_bytes: int | None, sizes: Mapping[str, BlockSize]) -> str:
    """All that somebody should read who wants to add a server."""
    if not survey.peers:
        return "I know no address through which this swarm can be joined right now; ask again in a minute."
    chosen = None if memory_bytes is None else fit(memory_bytes, sizes, survey.report.num_blocks)
    if chosen is not None and not chosen.best:
        return (
            f"Not one block fits into that: it takes {in_words(least_memory(sizes))} of free memory at least."
        )
    lines = [
        wanted(survey),
        "In a copy of Murmur, run:",
        f"{FENCE}\n{command(survey, chosen)}\n{FENCE}",
        *_fitting(survey, chosen, memory_bytes),
        *_model_note(survey),
        *_reach_note(survey),
        "Privacy: whoever runs a server can read what people write through it, and must not. Others see your"
        " machine's IP address; every token costs some of your bandwidth.",
    ]
    return "\n".join(lines)


def wanted(survey: Survey) -> str:
    """Where a server helps most."""
    report = survey.report
    if report.missing:
        return f"Most needed: {blocks(report.missing)} of {report.num_blocks}, which nobody serves."
    least = min(report.num_servers_by_block)
    which = blocks(survey.thinnest)
    if len(survey.thinnest) == report.num_blocks:
        which = f"any of the {report.num_blocks} blocks"
    servers = "one server each" if least == 1 else f"{least} servers each"
    return f"Most needed: {which}, with {servers}."


def in_words(size_bytes: float) -> str:
    """An amount of memory for people."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{max(1.0, size_bytes / 1e6):.0f} MB"


def _fitting(survey: Survey, chosen: Fit | None, memory_bytes: int | None) -> list[str]:
    num_blocks = survey.report.num_blocks
    if chosen is None or memory_bytes is None:
        return ["It takes as many blocks as fit, where they help most; `contribute 16GB` tells how many."]
    held = f"Of {num_blocks} blocks {chosen.best} fit into {in_words(memory_bytes)} of free memory"
    if chosen.quantization != "none":
        held += f", in {chosen.quantization} only"
    more = [f"{number} with `--quantization {kind}`" for kind, number in chosen.better()]
    also = f"; {', '.join(more)}, less exactly" if more else ""
    return [f"{held}{also}. It takes those that help most."]


def _model_note(survey: Survey) -> list[str]:
    if not survey.is_folder or survey.reach == "machine":
        return []
    return ["The model is a folder on the bot's machine: get the very same files, and name your own folder."]


def _reach_note(survey: Survey) -> list[str]:
    if survey.reach == "machine":
        return ["This swarm has addresses of one machine only: that works there, and nowhere else."]
    port = (
        f"Port: it takes a free TCP port; to be dialled from outside, forward one and add"
        f" `--host-maddrs /ip4/0.0.0.0/tcp/{PLACEHOLDER_PORT} --announce-maddrs"
        f" /ip4/YOUR.PUBLIC.IP/tcp/{PLACEHOLDER_PORT}`. Otherwise they come through a relay, more slowly."
    )
    if survey.reach == "network":
        return ["This swarm has addresses of one local network only: your machine must be in it.", port]
    return [port]
