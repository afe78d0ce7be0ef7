"""`./murmur generate`: one answer, from a swarm, on standard output."""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.checkpoint import check_model
from swarm.checkpoint.progress import SpokenProgress
from swarm.commands.other_models import name_other_models
from swarm.errors import ConfigError, NoRouteError
from swarm.identity import check_temporary_folder
from swarm.listening import check_initial_peers
from swarm.loop import forgive_input
from swarm.say import say
from swarm.text import TEMPLATES

if TYPE_CHECKING:
    from swarm.client import Murmur, SwarmModel
    from swarm.sampling_params import SamplingParams

MAX_TEMPLATE_LETTERS = 100_000
EXAMPLES = """examples
  ./murmur generate demo/model --initial-peers /ip4/127.0.0.1/tcp/31337/p2p/12D3... --prompt 'What is Murmur?'
  ./murmur generate owner/model --initial-peers ... --prompt 'A poem' --temperature 0.8 --seed 7 --json
  echo 'What is a swarm?' | ./murmur generate ./demo/model --initial-peers ... --prompt -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `./murmur generate`."""
    parser.description = "One answer from the swarm, streamed to standard output."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a Hub id, or a directory: the servers' model")
    parser.add_argument("--initial-peers", nargs="+", required=True, metavar="ADDRESS")
    parser.add_argument("--prompt", required=True, help="what to say; - reads standard input")
    parser.add_argument("--system", default="", help="a system prompt")
    parser.add_argument("--raw", action="store_true", help="continue the prompt, without a chat template")
    parser.add_argument(
        "--chat-template",
        metavar="NAME|FILE",
        help=f"a file, or one of {', '.join(TEMPLATES)} (default: the model's own, else dialogue)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--min-p", type=float, default=0.0)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="may be given again")
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same answer")
    parser.add_argument("--identity", type=Path, default=None, metavar="FILE")
    parser.add_argument(
        "--json", action="store_true", help="text, token_ids, seconds, tokens_per_second, route"
    )


async def run_generate(arguments: argparse.Namespace) -> None:
    """Print one answer. Raises MurmurError with a sentence."""
    check_temporary_folder()
    check_model(arguments.model)
    check_initial_peers(arguments.initial_peers)
    from swarm.client import join  # torch and hivemind take seconds; a mistake is told before
    from swarm.sampling_params import SamplingParams

    params = SamplingParams(
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
        max_new_tokens=arguments.max_new_tokens,
    )
    template = _template(arguments.chat_template)
    prompt = _prompt(arguments.prompt)
    started = time.monotonic()
    async with join(arguments.initial_peers, identity=arguments.identity) as swarm:
        model = await swarm.load(arguments.model, chat_template=template, progress=SpokenProgress(say))
        await _check_served(swarm, model)
        ids = (
            model.tokenizer.encode_user_text(prompt)
            if arguments.raw
            else model.tokenizer.encode_chat(_messages(arguments.system, prompt))
        )
        if not ids:
            raise ConfigError("the prompt is empty; say something with --prompt")
        say(f"[{await asyncio.to_thread(model.ends.describe)}]")
        try:
            await _answer(model, ids, params, is_json=arguments.json, started_s=started)
        except NoRouteError as error:
            raise _with_remedy(error, arguments.model) from error


async def _answer(
    model: "SwarmModel", ids: list[int], params: "SamplingParams", *, is_json: bool, started_s: float
) -> None:
    async with model.session() as session:
        session.on_notice = lambda notice: _note(notice.kind, notice.reason, notice.pause_s)
        generation = model.generate(session, ids, params)
        async for piece in generation:
            if not is_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if is_json:
            sys.stdout.write(_as_json(generation, session.route, time.monotonic() - started_s))
        sys.stdout.write("\n")


async def _check_served(swarm: "Murmur", model: "SwarmModel") -> None:
    """Raise NoRouteError at once if nobody serves the model, and the swarm is there for another one."""
    if model.network.directory.servers:
        return
    checkpoint = model.checkpoint
    others = name_other_models(await swarm.dht.find_models(), checkpoint.name, checkpoint.fingerprint)
    if others is not None:
        raise NoRouteError(others, tuple(range(checkpoint.num_blocks)))


def _as_json(generation: "object", route: "object", total_s: float) -> str:
    from swarm.generate import Generation

    assert isinstance(generation, Generation)
    return json.dumps(
        {
            "text": generation.text,
            "token_ids": generation.ids,
            "finish": generation.finish,
            "seed": generation.sampler.seed,
            "seconds": round(generation.seconds, 4),
            "first_token_seconds": round(generation.first_token_s or 0.0, 4),
            "total_seconds": round(total_s, 4),
            "tokens_per_second": round(generation.tokens_per_second, 2),
            "route": [
                {"peer": hop.peer_id, "blocks": [hop.span.start, hop.span.end]}
                for hop in generation.session.route
            ],
        }
    )


def _template(wish: str | None) -> str | None:
    """A name from TEMPLATES, or what the file of that name holds. Raises ConfigError."""
    if wish is None or wish in TEMPLATES:
        return wish
    try:
        with Path(wish).open(encoding="utf-8") as file:
            text = file.read(MAX_TEMPLATE_LETTERS + 1)
    except (OSError, ValueError) as error:
        names = ", ".join(TEMPLATES)
        raise ConfigError(f"--chat-template {wish}: neither one of {names} nor a file to read") from error
    if len(text) > MAX_TEMPLATE_LETTERS:
        raise ConfigError(f"--chat-template {wish}: too long to be a template")
    return text


def _with_remedy(error: NoRouteError, model: str) -> NoRouteError:
    if not error.missing:
        return error
    blocks = f"{error.missing[0]}:{error.missing[-1] + 1}"
    remedy = (
        f"host them with ./murmur serve {model} --blocks {blocks} --initial-peers ..., or try again later"
    )
    return NoRouteError(f"{error}; {remedy}", error.missing)


def _prompt(text: str) -> str:
    if text != "-":
        return text
    forgive_input()
    return sys.stdin.read().strip()


def _messages(system: str, prompt: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]


def _note(kind: str, reason: str, pause_s: float) -> None:
    words = {
        "lost": f"a server was lost ({reason})",
        "full": "a server has no room; another takes its place",
        "busy": "all servers are full; waiting for room",
    }
    say(f"[{words.get(kind, f'the answer goes on after {pause_s:.1f} s')}]")
