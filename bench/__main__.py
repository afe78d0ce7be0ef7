"""`./murmur bench NAME`: ratios measured side by side in one run, never absolute times."""

import argparse
import asyncio
import importlib
import json
import sys
import time
from typing import TYPE_CHECKING

from swarm.errors import ConfigError, MurmurError
from swarm.say import say
from swarm.signals import leave_on_signals

if TYPE_CHECKING:
    from bench.report import Found

BENCHES = {
    "hop": "what one more hop adds to a token (goal: at most 1 ms)",
    "decode": "tokens/s over 2 hops / unsplit transformers (goal: at least 0.95)",
    "batch": "tokens/s of 8 sessions at once / one at a time (goal: at least 5)",
    "push": "tokens/s along the chain / through the client, 100 ms links (goal: at least 1.4)",
    "reuse": "time to first token, prefix sent / forked (goal: at least 10)",
    "turn": "a turn after 1,000 tokens / without history (goal: at most 1.2)",
    "failover": "pause after a loss / prefill of what was lost (goal: at most 1.5)",
    "offload": "tokens/s over 2 hops / accelerate's disk offload (goal: at least 10)",
    "hostile": "time per token under attack / alone (goal: at most 1.2)",
    "decode-context": "a decode step at 1,000 tokens of context / at 10 (goal: at most 1.2)",
    "context": "what 4,000 keys add to a decode step / to bare attention (goal: at most 1.3)",
    "host": "a server's CPU time for a step beside the model, 64 sessions / 1 (goal: at most 1.1)",
    "server": "seconds until a server serves, its processes and its memory (goal: at most 6 s)",
    "ledger": "reserves and settles a second, two processes on SQLite (goal: at least 1,000)",
    "rooms": "the bot's own ms for a token, 50 conversations at once, 95th percentile (goal: at most 5)",
    "first": "seconds to a room's first text beyond what the swarm needs (goal: at most 1)",
    "gpu": "steps/s of a LLaMA-65B-shaped span on CUDA / what its memory allows (goal: at least 0.7)",
    "quantization": "memory of a block in bf16 / in nf4, with errors and times (goal: at least 3.5)",
}
HELP = "measurements\n" + "".join(f"  {name:<16} {what}\n" for name, what in BENCHES.items())
EPILOG = f"""{HELP}  all              every one of them, one after the other

Each one runs its baseline and its candidate in turn and prints the median of the ratios. Exit status 0 if
every goal is met, 1 if one is not. A measurement takes half a minute to some minutes; use a quiet machine.
`all` leaves out what cannot be measured here.

examples
  ./murmur bench hop
  ./murmur bench decode --json
  ./murmur bench all --json >results.json
  ./murmur bench all --markdown docs/benchmarks.md
"""
STOPPED = 130


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./murmur bench",
        description="Measurements, each a ratio of two things side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="one of the measurements below, or all")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--pairs", type=int, metavar="N", help="interleaved pairs (default: each one's own)")
    parser.add_argument("--markdown", metavar="FILE", help="write a page with a table and a chart as well")
    return parser.parse_args(arguments or ["--help"])


def main(arguments: list[str]) -> int:
    """Run measurements; returns the exit code."""
    parsed = parse_arguments(arguments)
    try:
        names = _names(parsed)
    except ConfigError as error:
        say(f"murmur bench: {error}")
        return 2
    from bench.report import Unmeasurable
    from swarm.loop import run

    results, status = [], 0
    for name in names:
        try:
            found = run(_measured(name, parsed.pairs))
        except MurmurError as error:
            say(f"murmur bench {name}: {error}")
            is_left_out = parsed.name == "all" and isinstance(error, Unmeasurable)
            status = status if is_left_out else 2
            continue
        except (asyncio.CancelledError, KeyboardInterrupt):
            return STOPPED
        results.append(found)
        sys.stdout.write(f"{json.dumps(found.as_json())}\n" if parsed.json else f"{found.as_text()}\n")
        sys.stdout.flush()
    if parsed.markdown:
        from bench.page import write_page

        write_page(parsed.markdown, results)
    return status or int(not all(found.is_met for found in results))


def _names(parsed: argparse.Namespace) -> list[str]:
    if parsed.name != "all" and parsed.name not in BENCHES:
        raise ConfigError(f"there is no measurement {parsed.name!r}; there are: {', '.join(BENCHES)}, all")
    if parsed.pairs is not None and not 1 <= parsed.pairs <= 1000:
        raise ConfigError(f"--pairs must be 1 to 1000, not {parsed.pairs}")
    return list(BENCHES) if parsed.name == "all" else [parsed.name]


async def _measured(name: str, pairs: int | None) -> "Found":
    module = importlib.import_module(f"bench.{name.replace('-', '_')}")
    started = time.monotonic()
    say(f"[{name}: {BENCHES[name]}]")
    found: Found = await (module.measure() if pairs is None else module.measure(pairs))
    say(f"[{name} took {time.monotonic() - started:.0f} s]")
    return found


if __name__ == "__main__":
    leave_on_signals(STOPPED)
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.exit(code)
