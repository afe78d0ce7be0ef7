"""`./murmur doctor`: what is wrong with an installation, and what to do; one line for each thing."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bot.config.command_line import CommandLine
from bot.config.loading import BadConfig, load_config
from bot.findings import Finding, failed
from swarm.say import clear, is_terminal, say, show

EXAMPLES = """examples
  ./murmur doctor
  ./murmur doctor --config /etc/murmur/config.toml
  ./murmur doctor --json | jq '.findings[] | select(.level != "ok")'

Works beside a running bot, and changes nothing. The exit code is 0 if nothing has FAILED, 1 if something has,
2 for a mistake on the command line."""


def run_doctor(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run `./murmur doctor`; returns the exit code."""
    parsed = _parse(arguments)
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not parsed.json:
            _write(f"{finding}\n")

    _examine(parsed.config, environment, tell)
    has_failed = any(finding.level == "FAILED" for finding in findings)
    if parsed.json:
        _write(as_json(findings))
    return 1 if has_failed else 0


def as_json(findings: list[Finding]) -> str:
    """One JSON object: `ok`, and `findings` with `check`, `level`, `sentence`."""
    told = [{"check": each.check, "level": each.level, "sentence": each.sentence} for each in findings]
    is_ok = all(finding.level != "FAILED" for finding in findings)
    return json.dumps({"ok": is_ok, "findings": told}) + "\n"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandLine(
        prog="./murmur doctor",
        description="Tries every connection that the bot needs, and says what is wrong and what to do.",
        epilog=EXAMPLES,
    )
    parser.add_config()
    parser.add_argument("--json", action="store_true", help="ok and findings as one JSON object")
    return parser.parse_args(arguments)


def _examine(path: Path, environment: Mapping[str, str], tell: Callable[[Finding], None]) -> None:
    try:
        loaded = load_config(path, environment)
    except BadConfig as error:
        for sentence in error.sentences:
            tell(failed("config", sentence))
        return
    from bot.doctor.checkup import checks_of, run_checks
    from swarm.loop import run_command

    logging.disable(logging.CRITICAL)  # what libraries have to say is in the findings
    run_command("doctor", run_checks(checks_of(loaded), tell, _shown), code_if_stopped=130)


def _shown(doing: str) -> None:
    if is_terminal():
        show(doing)


def _write(text: str) -> None:
    clear()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, UnicodeEncodeError) as error:
        say(f"murmur doctor: the report cannot be written: {type(error).__name__}")
