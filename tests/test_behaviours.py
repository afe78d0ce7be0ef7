"""Each behaviour that people were promised has tests which bear its number: `test_behaviour_07_...`."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
NUM_BEHAVIOURS = 30
NUMBERED = re.compile(r"test_behaviour_(\d\d)_\w+")


def numbers_of(source: str) -> set[int]:
    """The behaviours that the tests of a file show."""
    functions = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    matches = (NUMBERED.fullmatch(function.name) for function in functions)
    return {int(match[1]) for match in matches if match}


def test_each_behaviour_has_a_test() -> None:
    found: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        found |= numbers_of(path.read_text())
    assert found == set(range(1, NUM_BEHAVIOURS + 1))


def test_only_tests_that_would_run_are_counted() -> None:
    source = "async def test_behaviour_01_a(): ...\n# def test_behaviour_02_b\ndef behaviour_03_c(): ...\n"
    assert numbers_of(source) == {1}
