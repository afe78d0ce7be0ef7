"""Whoever catches every exception says why: it may hide mistakes of ours."""

import ast
from pathlib import Path

import pytest

BOT = Path(__file__).resolve().parents[2] / "bot"
BROAD = ("Exception", "BaseException")


def without_reason(source: str) -> list[int]:
    """Lines that catch everything, on which no comment says why; the name of a rule is no reason."""
    lines = source.splitlines()
    caught = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler)]
    broad = [node.lineno for node in caught if node.type is None or names_all(node.type)]
    return [number for number in sorted(broad) if not reason_in(lines[number - 1])]


def names_all(caught: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id in BROAD for node in ast.walk(caught))


def reason_in(line: str) -> str:
    comment = line.partition("#")[2].strip()
    return comment.partition(" - ")[2] if comment.startswith("noqa") else comment


def test_every_handler_of_all_exceptions_gives_its_reason() -> None:
    found = {
        file.relative_to(BOT.parent).as_posix(): lines
        for file in sorted(BOT.rglob("*.py"))
        if (lines := without_reason(file.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("handler", "is_reason_missing"),
    [
        ("except Exception:", True),
        ("except:", True),
        ("except (OSError, Exception) as error:", True),
        ("except BaseException:  # noqa: BLE001", True),
        ("except Exception as error:  # noqa: BLE001 - its caller gets it", False),
        ("except Exception:  # a stranger's keys raise what they like", False),
        ("except ValueError:", False),
    ],
)
def test_a_reason_is_more_than_the_name_of_a_rule(handler: str, is_reason_missing: bool) -> None:
    source = f"try:\n    work()\n{handler}\n    pass\n"
    assert without_reason(source) == ([3] if is_reason_missing else [])
