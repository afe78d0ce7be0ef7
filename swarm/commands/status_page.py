"""The page of `./murmur status`: a sentence, a picture of who hosts which blocks, a table. Pure.

Whatever servers say about themselves goes through status_text.plain first. What a server calls itself stands
in the last column: a name that is written from right to left then cannot reorder anything beside it.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from swarm.commands.other_models import name_other_models
from swarm.commands.status_report import Report
from swarm.commands.status_text import cut, num_cells, plain
from swarm.routing import name_blocks
from swarm.wire.records import ServerRecord

MAX_ROWS = 100
MAX_MODEL_CELLS = 200
MAX_MISSING_CELLS = 300
MAX_VERSION_CELLS = 12
MIN_NAME_CELLS = 12
CELLS_PER_BLOCK = 4
MIN_AXIS_CELLS = 8
GAP = "  "
PEER_LETTERS = 8  # the last ones: all peer ids of Ed25519 keys begin alike

Colour = Literal["bold", "green", "yellow", "red"]
_CODES: dict[Colour, str] = {"bold": "1", "green": "32", "yellow": "33", "red": "31"}


class Signs(NamedTuple):
    """For blocks on a usable server, on another one, elsewhere; for text that was cut."""

    usable: str
    other: str
    nothing: str
    ellipsis: str


@dataclass(frozen=True)
class Look:
    """What the place that shows the page can do."""

    width: int = 120
    encoding: str = "utf-8"
    has_colour: bool = False

    @property
    def signs(self) -> Signs:
        """Letters that the encoding has."""
        signs = "█▒·…"
        can_show = signs.encode(self.encoding, "ignore").decode(self.encoding) == signs
        return Signs(*signs) if can_show else Signs("#", "~", ".", "..")

    def paint(self, text: str, colour: Colour) -> str:
        """`text` in a colour, if there are colours."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.has_colour and text.strip() else text


def page(report: Report, look: Look) -> list[str]:
    """Lines for people: all that is known, as far as it fits into `look.width` columns."""
    colour: Colour = "green" if report.is_complete else "red"
    lines = [look.paint(line, colour) for line in _wrapped(sentence(report, look), look)]
    if not report.servers:
        return lines
    shown = sorted(report.servers, key=lambda server: (server.start, server.end, server.peer))[:MAX_ROWS]
    lines += ["", *picture(report, shown, look), "", *table(report, shown, look)]
    if len(shown) < len(report.servers):
        lines.append(f"and {len(report.servers) - len(shown)} more servers; --json lists all")
    return lines


def sentence(report: Report, look: Look) -> str:
    """Whether the swarm can answer, and if not, what to do."""
    model = cut(plain(report.model, look.encoding), MAX_MODEL_CELLS, look.signs.ellipsis)
    if not report.num_peers:
        return f"{model}: no peer of the swarm answers at the moment; check the network and the initial peers"
    if not report.servers:
        others = name_other_models(report.hosted, report.model, report.fingerprint, look.encoding)
        if others is not None:
            return f"{model}: no servers; {others}"
        return (
            f"{model}: no servers; start one with ./murmur serve {model} --initial-peers ADDRESS, and if some"
            f" run already, check that theirs is the same model (fingerprint {report.fingerprint})"
        )
    num_covered = report.num_blocks - len(report.missing)
    covered = f"{model}: {num_covered} of {report.num_blocks} blocks covered, {_servers(report)}"
    if report.is_complete:
        return f"{covered}; complete, the swarm can answer"
    missing = cut(name_blocks(report.missing), MAX_MISSING_CELLS, look.signs.ellipsis)
    return f"{covered}; no server for {missing}; see ./murmur serve --help"


def _servers(report: Report) -> str:
    total, num_idle = len(report.servers), len(report.servers) - len(report.usable)
    words = f"{total} server{'' if total == 1 else 's'}"
    return f"{words} ({num_idle} of them not usable now)" if num_idle else words


def _wrapped(text: str, look: Look) -> list[str]:
    return textwrap.wrap(text, look.width, break_on_hyphens=False)


def picture(report: Report, servers: Sequence[ServerRecord], look: Look) -> list[str]:
    """A bar per server over the axis of blocks, and below how many usable servers each block has."""
    axis = Axis.fitting(report.num_blocks, look.width - PEER_LETTERS - 17)
    label = PEER_LETTERS + 3
    signs = look.signs
    lines = ["block".ljust(label) + axis.labels()]
    for server in servers:
        sign = signs.usable if report.is_usable(server) else signs.other
        bar = "".join(
            sign if server.start < stop and start < server.end else signs.nothing
            for start, stop in axis.cells
        )
        lines.append(
            _peer(server, look).ljust(label) + look.paint(bar, _colour(report, server)) + f"  {server.span}"
        )
    lines.append("servers".ljust(label) + _counts(report, axis, look))
    scale = "" if axis.is_exact else f"; up to {axis.blocks_per_cell} blocks a column"
    lines.append(f"{' ' * label}{signs.usable} usable, {signs.other} not now{scale}")
    return lines


def _counts(report: Report, axis: "Axis", look: Look) -> str:
    counts = count_letters(report, axis)
    return "".join(look.paint(it, "red") if it == "0" else it for it in counts).rstrip()


def count_letters(report: Report, axis: "Axis") -> str:
    """How many usable servers each block has, a letter for every column; of several blocks the fewest."""
    letters, previous = "", -1
    for start, stop in axis.cells:
        count = min(report.num_servers_by_block[start:stop])
        letters += " " if axis.is_exact and start == previous else str(count) if count < 10 else "+"
        previous = start
    return letters


@dataclass(frozen=True)
class Axis:
    """Blocks `[0, num_blocks)` over columns: several columns a block, or several blocks a column."""

    num_blocks: int
    num_cells: int

    @classmethod
    def fitting(cls, num_blocks: int, room: int) -> "Axis":
        """As wide as is useful within `room` columns: 8 blocks take 32, or 24 if there is room for 30."""
        room = max(room, MIN_AXIS_CELLS)
        per_block = min(CELLS_PER_BLOCK, room // num_blocks)
        return cls(num_blocks, per_block * num_blocks or room)

    @property
    def is_exact(self) -> bool:
        """Tell whether every block has columns of its own."""
        return self.num_cells >= self.num_blocks

    @property
    def blocks_per_cell(self) -> int:
        """The blocks of the fullest column."""
        return -(-self.num_blocks // self.num_cells)

    @property
    def cells(self) -> list[tuple[int, int]]:
        """The half-open range of blocks of every column."""
        bounds = [i * self.num_blocks // self.num_cells for i in range(self.num_cells + 1)]
        return [(start, max(start + 1, stop)) for start, stop in pairwise(bounds)]

    def labels(self) -> str:
        """Every block's index above its first column if there is room, else the first and the last."""
        per_block = self.num_cells // self.num_blocks
        last = str(self.num_blocks - 1)
        if per_block > len(last):
            return "".join(str(block).ljust(per_block) for block in range(self.num_blocks)).rstrip()
        return "0" + last.rjust(self.num_cells - 1)


@dataclass(frozen=True)
class Column:
    """One column of the table; those of the highest `rank` go first if the line is too long."""

    name: str
    cell: Callable[[Report, ServerRecord, Look], str]
    rank: int = 0
    is_right: bool = True
    is_painted: bool = False


def table(report: Report, servers: Sequence[ServerRecord], look: Look) -> list[str]:
    """A line per server, within `look.width` columns: what does not fit is left out, and said."""
    cells = {column: [column.cell(report, server, look) for server in servers] for column in COLUMNS}
    widths = _fitting(
        {column: max(map(num_cells, (column.name, *cells[column]))) for column in COLUMNS}, look
    )
    lines = [look.paint(_line([_padded(column, column.name, widths[column]) for column in widths]), "bold")]
    for row, server in enumerate(servers):
        words = []
        for column, width in widths.items():
            text = _padded(column, cut(cells[column][row], width, look.signs.ellipsis), width)
            words.append(look.paint(text, _colour(report, server)) if column.is_painted else text)
        lines.append(_line(words))
    if any(server.end > report.num_blocks for server in servers):
        lines += _wrapped("! names blocks that this model does not have, so no client uses it", look)
    if left_out := [column.name for column in COLUMNS if column not in widths]:
        lines += _wrapped(f"no room for: {', '.join(left_out)}; --json shows all", look)
    return lines


def _fitting(widths: dict[Column, int], look: Look) -> dict[Column, int]:
    """Leave out columns by rank until the line fits; the last column, a name, takes what is left."""
    *others, name = widths
    while (room := look.width - sum(widths[column] + len(GAP) for column in others)) < min(
        widths[name], MIN_NAME_CELLS
    ):
        worst = max(others, key=lambda column: column.rank)
        if not worst.rank:
            break
        others.remove(worst)
    return {column: widths[column] for column in others} | {name: max(1, min(widths[name], room))}


def _line(words: Sequence[str]) -> str:
    return GAP.join(words).rstrip()


def _padded(column: Column, text: str, width: int) -> str:
    space = " " * (width - num_cells(text))
    return space + text if column.is_right else text + space


def _colour(report: Report, server: ServerRecord) -> Colour:
    return "green" if report.is_usable(server) else "yellow"


def _peer(server: ServerRecord, look: Look) -> str:
    return look.signs.ellipsis + plain(server.peer[-PEER_LETTERS:], look.encoding)


def _number(value: float) -> str:
    """At most nine letters, whatever a server claims."""
    if value >= 10_000_000:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _weights(server: ServerRecord) -> str:
    return server.dtype if server.quantization == "none" else f"{server.dtype}/{server.quantization}"


def _version(server: ServerRecord, look: Look) -> str:
    return cut(plain(server.version, look.encoding), MAX_VERSION_CELLS, look.signs.ellipsis)


COLUMNS = (
    Column("peer", lambda _, server, look: _peer(server, look), is_right=False),
    Column("blocks", lambda r, server, _: f"{server.span}{'!' if server.end > r.num_blocks else ''}"),
    Column("state", lambda _, server, __: server.state, is_right=False, is_painted=True),
    Column("tokens/s", lambda _, server, __: _number(server.throughput), rank=1),
    Column("blocks/s alone", lambda _, server, __: _number(server.inference_rps), rank=5),
    Column("free KV tokens", lambda _, server, __: _number(server.free_tokens), rank=2),
    Column("queue", lambda _, server, __: _number(server.queue_depth), rank=3),
    Column("weights", lambda _, server, __: _weights(server), rank=6, is_right=False),
    Column("version", lambda _, server, look: _version(server, look), rank=7, is_right=False),
    Column("relayed", lambda _, server, __: "yes" if server.is_relayed else "no", rank=8, is_right=False),
    Column("age", lambda report, server, _: f"{report.age_s(server):.0f} s", rank=4),
    Column("calls itself", lambda _, server, look: plain(server.public_name, look.encoding), is_right=False),
)
