"""How a swarm looks to people in a chat: sentences, and a picture in letters. Pure.

What servers call themselves is strangers' words: no line of them is longer, or anything else, than it seems.
"""

from collections.abc import Sequence

from bot.rendering.counting import counted
from bot.survey import SessionState, Survey, Unknown
from swarm.commands.status_page import Axis, count_letters
from swarm.commands.status_report import Report
from swarm.commands.status_text import cut, plain
from swarm.routing import name_blocks
from swarm.wire.records import ServerRecord

FENCE = "```"
BAR_CELLS = 32
"""With what stands before it, as wide as a telephone shows without breaking a line."""
MAX_SERVERS = 8
MAX_NAME_CELLS = 16
MAX_MODEL_CELLS = 80
MAX_REASON_CELLS = 200
MAX_BLOCKS_LETTERS = 80
NOBODY = "-"


def headline(survey: Survey) -> str:
    """Whether the model can answer."""
    report, model = survey.report, name_of(survey.report.model)
    if not report.servers and not report.num_peers:
        return "I reach nobody in the swarm right now, so I cannot answer; I keep trying."
    if not report.servers:
        return f"{model} cannot answer: no server is there. `contribute` tells how to add one."
    if report.is_complete:
        return f"{model} can answer: {covered(report)}."
    return (
        f"{model} cannot answer: nobody serves {blocks(report.missing)} of {report.num_blocks}."
        " `contribute` tells how to help."
    )


def covered(report: Report) -> str:
    """How much is served, and by how many."""
    num_covered = report.num_blocks - len(report.missing)
    which = "all" if report.is_complete else f"{num_covered} of"
    return f"{which} {counted(report.num_blocks, 'block')} served, by {counted(len(report.usable), 'server')}"


def picture(report: Report) -> str:
    """Servers of each block, and the servers, in letters of one width."""
    if not report.servers:
        return ""
    axis = Axis.fitting(report.num_blocks, BAR_CELLS)
    counts = count_letters(report, axis).replace("0", NOBODY).rstrip()
    lines = [f"block    {axis.labels()}", f"servers  {counts}", "", *_table(report)]
    if not report.is_complete:
        lines.insert(2, f"         {NOBODY} nobody")
    return "\n".join([FENCE, *lines, FENCE])


def thin(survey: Survey) -> str:
    """Where one server more helps most, if all is served."""
    report = survey.report
    least = min(report.num_servers_by_block, default=0)
    if not report.is_complete or least > 2:
        return ""
    is_everywhere = len(survey.thinnest) == report.num_blocks
    which = "every block" if is_everywhere else blocks(survey.thinnest)
    has = "has" if is_everywhere or len(survey.thinnest) == 1 else "have"
    return f"Thin: {which} {has} only {counted(least, 'server')}."


def speed(survey: Survey) -> str:
    """How fast it answers."""
    if survey.tokens_per_s <= 0:
        return ""
    words = "about {} in the newest answers" if survey.is_measured else "at best {}, by what servers say"
    return f"Speed: {words.format(_rate(survey.tokens_per_s))}."


def listed(found: Survey | Unknown, *, is_first: bool) -> str:
    """A line about one model."""
    if isinstance(found, Unknown):
        return f"{name_of(found.name)}: nothing is known of it: {_word(found.reason, MAX_REASON_CELLS)}."
    report = found.report
    words = [f"{name_of(report.model)}: {covered(report)}" if report.servers else _nobody(report)]
    if report.servers and report.missing:
        words.append(f"nobody has {blocks(report.missing)}")
    if found.tokens_per_s > 0:
        words.append(f"{'about' if found.is_measured else 'at best'} {_rate(found.tokens_per_s)}")
    return "; ".join(words) + (". This one answers." if is_first else ".")


def session(state: SessionState) -> str:
    """How the conversation here is."""
    sentences = {
        "none": "no conversation of yours yet.",
        "live": f"live{_tokens(state.num_tokens)}; your next message goes on at once.",
        "detached": f"detached{_tokens(state.num_tokens)}; servers keep it, and your next message goes on.",
        "parked": f"parked; with your next message servers are told it again{_tokens(state.num_tokens)}.",
        "failed": "failed; your next message begins a new session, which is told all of it.",
    }
    if state.kind == "rebuilding":
        done = f": {state.num_done} of {state.num_tokens} tokens" if state.num_tokens else ""
        return f"Your session: rebuilding{done}."
    return f"Your session: {sentences[state.kind]}"


def place(num_running: int, num_ahead: Sequence[int], num_waiting: int) -> str:
    """Where a person's questions are in the queue; `num_ahead` of each that waits."""
    if num_ahead:
        ahead = ", ".join(map(str, num_ahead))
        return f"Queue: {counted(len(num_ahead), 'question')} of yours waiting, {ahead} ahead."
    if num_running:
        return "Queue: your answer is being written."
    if num_waiting:
        return f"Queue: {counted(num_waiting, 'question')} of others waiting, none of yours."
    return "Queue: nothing is waiting."


def blocks(numbers: Sequence[int]) -> str:
    """Words for blocks, not too many."""
    return cut(name_blocks(numbers), MAX_BLOCKS_LETTERS, " and more")


def name_of(model: str) -> str:
    """A model's name, as code."""
    return f"`{_word(model, MAX_MODEL_CELLS)}`"


def _nobody(report: Report) -> str:
    return f"{name_of(report.model)}: nobody serves it"


def _table(report: Report) -> list[str]:
    servers = sorted(report.servers, key=lambda server: (server.start, server.end, server.peer))
    rows = [_row(report, server) for server in servers[:MAX_SERVERS]]
    more = len(servers) - MAX_SERVERS
    return [
        "blocks  tokens/s  free KV  server",
        *rows,
        *([f"and {more} more"] if more > 0 else []),
    ]


def _row(report: Report, server: ServerRecord) -> str:
    """A server: blocks, speed under load, room for tokens, its name, and why it is not used."""
    span = f"{server.start}-{server.end - 1}" if len(server.span) > 1 else f"{server.start}"
    name = _word(server.public_name or server.peer[-8:], MAX_NAME_CELLS)
    if not report.is_usable(server):
        name = f"{name} ({server.state if server.state != 'online' else 'not usable'})"
    return f"{span:<6}  {_short(server.throughput):>8}  {_short(server.free_tokens):>7}  {name}"


def _word(text: str, max_cells: int) -> str:
    """Strangers' words on one line, which end no code block and begin no markup."""
    return cut(plain(text).replace("`", "'"), max_cells, "..")


def _tokens(number: int) -> str:
    return f" ({number} tokens)" if number else ""


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.0f} tokens/s" if tokens_per_s >= 10 else f"{tokens_per_s:.1f} tokens/s"


def _short(number: float) -> str:
    """At most five letters, whatever a server claims: 9500, 16k, 210M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
