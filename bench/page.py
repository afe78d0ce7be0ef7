"""Results as a page in Markdown: a table, and a chart of how far each is from its goal."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from bench.report import Found, machine

BAR_PX, ROW_PX, LABEL_PX, WIDTH_PX = 16, 30, 130, 640
MAX_SHARE = 2.0
NOTES = "\n## Notes\n"
HEAD = """# Benchmarks

Every figure is the median of interleaved pairs: baseline and candidate ran in turn, in one run, on one
machine. Models are random and made on the spot; what is compared matters, not the speed of the machine.
`./murmur bench all` measures again; `./murmur bench NAME --json` prints all that a measurement knows.
"""


def write_page(path: str, results: Sequence[Found]) -> None:
    """Write the page, and the chart beside it."""
    page = Path(path)
    chart = page.with_suffix(".svg")
    chart.write_text(draw(results), encoding="utf-8")
    notes = _notes_of(page)
    page.write_text(_page(results, chart.name) + notes, encoding="utf-8")


def _notes_of(page: Path) -> str:
    """What people have written at the end of the page, under NOTES: it stays."""
    if not page.exists():
        return ""
    _, title, notes = page.read_text(encoding="utf-8").partition(NOTES)
    return title + notes


def _page(results: Sequence[Found], chart: str) -> str:
    rows = "".join(map(_row, results))
    details = "".join(f"- `{it.name}`: {_details(it)}\n" for it in results if it.details)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return (
        f"{HEAD}\nMeasured on {today} on {machine()}; other work may have run beside it.\n\n"
        f"![How far each measurement is from its goal]({chart})\n\n"
        f"| measurement | median | goal | pairs | compared |\n|---|---|---|---|---|\n{rows}\n"
        f"## Details\n\n{details}"
    )


def _row(it: Found) -> str:
    return f"| `{it.name}` | {it.ratio}{it.unit} | {_goal(it)} | {it.pairs} | {it.compared} |\n"


def _goal(found: Found) -> str:
    sign, word = "\u2265" if found.is_least else "\u2264", "met" if found.is_met else "**not met**"
    return f"{sign} {found.goal}{found.unit}, {word}"


def _details(found: Found) -> str:
    told = [f"{key.replace('_', ' ')} {value}" for key, value in found.details.items()]
    also = [
        f"{goal.replace('_', ' ')}: {'met' if is_met else '**not met**'}"
        for goal, is_met in found.also.items()
    ]
    return ", ".join(told + also)


def draw(results: Sequence[Found]) -> str:
    """Draw an SVG: one bar for each result, as a share of its goal; a bar beyond the line meets it."""
    scale = (WIDTH_PX - LABEL_PX - 90) / MAX_SHARE
    line_px = LABEL_PX + scale
    bars = "".join(_bar(place, found, scale) for place, found in enumerate(results))
    height = ROW_PX * (len(results) + 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}"'
        f' font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="white"/>{bars}'
        f'<line x1="{line_px}" x2="{line_px}" y1="8" y2="{height - ROW_PX}" stroke="#333"'
        f' stroke-dasharray="4"/>'
        f'<text x="{line_px}" y="{height - 10}" text-anchor="middle">goal</text></svg>\n'
    )


def _bar(place: int, found: Found, scale: float) -> str:
    share = found.ratio / found.goal if found.is_least else found.goal / max(found.ratio, 1e-9)
    width, y = min(share, MAX_SHARE) * scale, 12 + place * ROW_PX
    colour = "#2a9d5c" if found.is_met else "#d1603d"
    return (
        f'<text x="{LABEL_PX - 8}" y="{y + 13}" text-anchor="end">{found.name}</text>'
        f'<rect x="{LABEL_PX}" y="{y}" width="{width:.1f}" height="{BAR_PX}" fill="{colour}"/>'
        f'<text x="{LABEL_PX + width + 6:.1f}" y="{y + 13}">{found.ratio}{found.unit}</text>'
    )
