"""`./murmur serve`: host some blocks of a model for a swarm."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from server.throughput import PREFILL_TOKENS
from swarm.errors import ConfigError, MurmurError
from swarm.say import say
from swarm.signals import leave_on_signals
from swarm.wire.blocks import Span, parse_span

if TYPE_CHECKING:
    from server.block_server import Options

MAX_THREADS = 1024
EXAMPLES = """examples
  ./murmur serve ./my-model --new-swarm                       the first server of a private swarm
  ./murmur serve ./my-model --initial-peers /ip4/203.0.113.7/tcp/31337/p2p/12D3Koo...
  ./murmur serve owner/model --initial-peers ... --num-blocks 8 --identity server.key
  ./murmur serve ./my-model --initial-peers ... --blocks 4:12 --kv-tokens 8192"""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./murmur serve",
        description="A block server: hosts some blocks of a model, so that others can talk to it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a Hub id, or a directory with safetensors")
    swarm = parser.add_mutually_exclusive_group(required=True)
    swarm.add_argument("--initial-peers", nargs="+", metavar="ADDRESS", help="nodes of the swarm to join")
    swarm.add_argument("--new-swarm", action="store_true", help="start a swarm of our own")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--blocks", metavar="A:B", help="host blocks A to B-1")
    which.add_argument(
        "--num-blocks", type=int, metavar="N", help="host N blocks, where the swarm needs them most"
    )
    _add_model_options(parser)
    _add_network_options(parser)
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="written once online: peer_id, addresses, blocks"
    )
    return parser.parse_args(arguments)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: cuda when there)")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="default: the model's",
    )
    parser.add_argument("--quantization", default="none", choices=["none", "int8", "nf4"])
    parser.add_argument(
        "--kv-tokens", type=int, metavar="N", help="tokens of all sessions, 128 or more (default: 16384)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="compute threads (default: 1)")


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="key file, made on first use: the same peer id every time",
    )
    parser.add_argument(
        "--host-maddrs",
        nargs="+",
        default=["/ip4/0.0.0.0/tcp/0"],
        metavar="ADDRESS",
        help="where to listen (default: a free TCP port)",
    )
    parser.add_argument(
        "--announce-maddrs", nargs="+", default=[], metavar="ADDRESS", help="where others reach this machine"
    )
    parser.add_argument(
        "--no-relay",
        dest="relay",
        action="store_false",
        help="carry no traffic of others, who then must reach this server's port; takes 30 MB less",
    )
    parser.add_argument("--public-name", default="", help="shown beside your server in ./murmur status")


def _span_of(text: str | None) -> Span | None:
    try:
        return None if text is None else parse_span(text)
    except ValueError as error:
        raise ConfigError(f"--blocks: {error}") from error


def _check_at_least(minimum: int, name: str, value: int | None) -> None:
    if value is not None and value < minimum:
        raise ConfigError(f"{name} must be {minimum} or more, not {value}")


def _check_announced(public_name: str, maddrs: Sequence[str]) -> None:
    """Raise ConfigError for what no record in the DHT can hold."""
    from swarm.wire.bounds import Address
    from swarm.wire.records import MAX_PEER_ID_LETTERS, Name

    if not _fits(public_name, Name):
        raise ConfigError("--public-name must be text of at most 64 letters, without tabs and line breaks")
    for maddr in maddrs:
        if not _fits(f"{maddr}/p2p/{'1' * MAX_PEER_ID_LETTERS}", Address):
            raise ConfigError(f"--announce-maddrs must name shorter addresses than {maddr[:60]!r}...")


def _fits(text: str, kind: object) -> bool:
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(text), type=kind)
    except (msgspec.MsgspecError, ValueError):  # what the command line got as no UTF-8 cannot be encoded
        return False
    return True


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parsed = parse_arguments(arguments)
    try:
        _check(parsed)
    except MurmurError as error:
        say(f"murmur serve: {error}")
        return 2
    say("starting")
    import logging

    from server.block_server import serve  # torch, transformers and hivemind: seconds
    from swarm.loop import run_command

    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    return run_command("serve", serve(_options(parsed), say), code_if_stopped=0)


def _check(parsed: argparse.Namespace) -> None:
    """Find mistakes that cost no time to find. Raises ConfigError."""
    from swarm.checkpoint import check_model
    from swarm.identity import check_temporary_folder
    from swarm.listening import check_host_maddrs, check_initial_peers
    from swarm.ready_file import check_ready_file

    check_temporary_folder()
    _span_of(parsed.blocks)
    _check_at_least(1, "--num-blocks", parsed.num_blocks)
    _check_at_least(PREFILL_TOKENS, "--kv-tokens", parsed.kv_tokens)  # the measurement takes them in one step
    _check_at_least(1, "--threads", parsed.threads)
    if parsed.threads > MAX_THREADS:
        raise ConfigError(f"--threads must be {MAX_THREADS} or less, not {parsed.threads}")
    _check_announced(parsed.public_name, parsed.announce_maddrs)
    check_model(parsed.model)
    check_initial_peers(parsed.initial_peers or ())
    check_host_maddrs(parsed.host_maddrs)
    check_ready_file(parsed.ready_file)


def _options(parsed: argparse.Namespace) -> "Options":
    from server.block_server import Options

    return Options(
        model=parsed.model,
        initial_peers=tuple(parsed.initial_peers or ()),
        blocks=_span_of(parsed.blocks),
        num_blocks=parsed.num_blocks,
        device=parsed.device,
        dtype=parsed.dtype,
        quantization=parsed.quantization,
        kv_tokens=parsed.kv_tokens,
        identity=parsed.identity,
        host_maddrs=tuple(parsed.host_maddrs),
        announce_maddrs=tuple(parsed.announce_maddrs),
        use_relay=parsed.relay,
        public_name=parsed.public_name,
        ready_file=parsed.ready_file,
        num_threads=parsed.threads,
    )


if __name__ == "__main__":
    leave_on_signals(0)
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.exit(code)
