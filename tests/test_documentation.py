"""What can be done is written down where people look for it, and links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.commands.catalogue import COMMANDS
from bot.commands.wishes import SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CODE = re.compile(r"`([^`\n]+)`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def local_links(page: Path) -> Iterator[str]:
    """Links of a page that lead into the repository."""
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    missing = [target for target in local_links(page) if not (page.parent / target).exists()]
    assert missing == []


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        left += [page.parent / target for target in local_links(page)]
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= reached


@pytest.mark.parametrize("command", [it.name for it in COMMANDS])
def test_every_command_of_the_chat_is_described(command: str) -> None:
    page = read("docs/operate.md" if command.startswith("admin ") else "docs/chat.md")
    described = " ".join(_CODE.findall(page))
    assert re.search(rf"(?<![\w-]){command}(?![\w-])", described), f"{command} is not on its page"


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_that_people_can_change_is_described(setting: str) -> None:
    assert f"| `{setting}` |" in read("docs/chat.md")


def test_the_page_of_settings_gives_their_bounds() -> None:
    for name, setting in SETTINGS.items():
        low, high = setting.words if setting.kind == "switch" else (f"{setting.least:g}", f"{setting.most:g}")
        assert f"| `{name}` | {low} | {high} |" in read("docs/chat.md")
