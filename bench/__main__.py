"""`./murmur bench NAME`: ratios measured side by side in one run, never absolute times."""

import importlib
import sys

BENCHES = {
    "decode-context": "a decode step at 1,000 tokens of context / at 10 (goal: at most 1.2)",
}
HELP = """usage: ./murmur bench NAME [--json]

measurements
{lines}

Each one runs its baseline and its candidate in turn and prints the median of the ratios. Exit status 0 if
the goal is met, 1 if it is not.

examples
  ./murmur bench decode-context
  ./murmur bench decode-context --json
"""


def main(arguments: list[str]) -> int:
    """Run one measurement; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<16} {what}" for name, what in BENCHES.items())
        sys.stdout.write(HELP.format(lines=lines))
        return 0
    if arguments[0] not in BENCHES:
        names = ", ".join(BENCHES)
        sys.stderr.write(f"murmur bench: there is no measurement {arguments[0]!r}; there are: {names}\n")
        return 2
    module = importlib.import_module(f"bench.{arguments[0].replace('-', '_')}")
    status: int = module.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
