"""A block server's life: join, choose blocks, load, prove that it works, serve, drain."""

import asyncio
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from server.announcer import Announced, Announcer
from server.block_loader import block_size, load_span
from server.devices import computing_on, describe, enough_memory, find_device, num_cores
from server.executor import Executor
from server.host import Host, HostedModel
from server.kv_cache import KVPool
from server.kv_spill import SpillStore
from server.own_speed import measured
from server.placement import must_plan_again, plan_span
from server.probe import probe
from server.resources import free_memory_bytes
from server.serving import Serving, open_chain
from server.span import SpanModel
from server.verify import verify_span
from swarm.addresses import reach_of
from swarm.background import finish, running
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.block_sizes import Quantization, resolve_quantization
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.fitting import DEFAULT_KV_TOKENS, plan_num_blocks
from swarm.checkpoint.progress import SpokenProgress
from swarm.dht import Dht, open_dht
from swarm.errors import ConfigError, SwarmError
from swarm.loop import spare_what_is_loaded
from swarm.ready_file import write_ready_file
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import Span
from swarm.wire.records import ServerRecord

logger = logging.getLogger(__name__)

KV_SHARE = 4
DRAIN_S = 10.0
GOODBYE_S = 3.0
SETTLE_S = 1.0
LOOK_AGAIN_S = (1, 2, 4, 8)
CACHE_FOLDER = Path.home() / ".cache" / "murmur"
UNKNOWN_THROUGHPUT = 100.0
HIDDEN = (
    "warning: without relays only your own network reaches these addresses, and the swarm is on the "
    "internet: name a public one with --announce-maddrs, or leave --no-relay away"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person who starts a server may choose."""

    model: str
    initial_peers: tuple[str, ...] = ()
    blocks: Span | None = None
    num_blocks: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: Quantization = "none"
    kv_tokens: int | None = None
    identity: Path | None = None
    host_maddrs: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    announce_maddrs: tuple[str, ...] = ()
    use_relay: bool = True
    public_name: str = ""
    ready_file: Path | None = None
    num_threads: int = 1


async def serve(options: Options, say: Say) -> None:
    """Serve until cancelled, then drain. `say` hears what happens, in sentences. Raises ConfigError."""
    device = find_device(options.device)
    checkpoint, num_blocks = await asyncio.to_thread(_open, options, device, say)
    async with AsyncExitStack() as stack:
        say(computing_on(device, options.num_threads, num_cores()))
        say("joining the swarm" if options.initial_peers else "starting a swarm")
        transport = await stack.enter_async_context(
            open_transport(
                options.identity,
                initial_peers=options.initial_peers,
                host_maddrs=options.host_maddrs,
                announce_maddrs=options.announce_maddrs,
                use_relay=options.use_relay,
            )
        )
        dht = await stack.enter_async_context(open_dht(transport, options.initial_peers))
        announced = _announced(checkpoint, options, device)
        announcer = await _join(
            transport, dht, announced, checkpoint.num_blocks, options.blocks or num_blocks
        )
        stack.push_async_callback(_withdraw, announcer)
        await stack.enter_async_context(running(announcer.announce_forever()))
        span = announcer.span
        say(f"hosting blocks {span} of {checkpoint.name}, which has {checkpoint.num_blocks}")
        with enough_memory(device, len(span), _what_makes_smaller(checkpoint, options)):
            model = await asyncio.to_thread(_load, checkpoint, span, options, device, say)
            host = await stack.enter_async_context(_hosting(model, checkpoint, options, transport))
            serving = Serving(transport, host)
            await serving.start()
            say("measuring how fast they run")
            described = describe(device, options.num_threads)
            announcer.throughput = await measured(host, described, options.quantization, CACHE_FOLDER)
        await probe(transport.peer_id, transport.addresses, host.model)
        announcer.watch(host, serving)
        await _online(announcer, host, serving, options, say)


def _announced(checkpoint: Checkpoint, options: Options, device: torch.device) -> Announced:
    """What we shall say of ourselves, but for the span."""
    dtype = resolve_dtype(checkpoint, options.dtype, device)
    return Announced(
        checkpoint.fingerprint,
        Span(0, 1),
        dtype,
        resolve_quantization(checkpoint, options.quantization),
        options.public_name,
        checkpoint.title,
        checkpoint.num_blocks,
    )


def is_hidden(options: Options, addresses: Sequence[str]) -> bool:
    """Whether a server without relays is, as far as it shows, out of reach for a part of its swarm."""
    others = map(reach_of, options.initial_peers)
    return not options.use_relay and "internet" in others and "internet" not in map(reach_of, addresses)


async def _online(announcer: Announcer, host: Host, serving: Serving, options: Options, say: Say) -> None:
    """Be there for others until cancelled; then let nobody down."""
    spare_what_is_loaded()
    announcer.state = "online"
    await announcer.announce_now()
    record = announcer.record()
    if options.ready_file is not None:
        blocks = [record.start, record.end]
        write_ready_file(
            options.ready_file, peer_id=record.peer, addresses=list(record.addresses), blocks=blocks
        )
    say(f"online as {record.peer}: {record.throughput:.0f} tokens/s, room for {record.free_tokens} tokens")
    for address in record.addresses:
        say(f"reached at {address}")
    if is_hidden(options, record.addresses):
        say(HIDDEN)
    try:
        await asyncio.Event().wait()
    finally:
        await finish(_drain(announcer, host, serving, say), within_s=DRAIN_S + 2 * GOODBYE_S)


async def _drain(announcer: Announcer, host: Host, serving: Serving, say: Say) -> None:
    """Take no new sessions, send the present ones elsewhere, and wait until they have gone."""
    host.table.is_draining = True
    if len(host.table):
        say(f"draining: {len(host.table)} sessions move to other servers")
        announcer.set_state("draining")
        serving.push_draining(int(DRAIN_S * 1000))
        await host.wait_until_left(DRAIN_S)
    await _withdraw(announcer)
    say("gone")


async def _withdraw(announcer: Announcer) -> None:
    """Say goodbye, unless we did. Peers that are silent learn from our record's end that we are gone."""
    if announcer.state != "offline":
        with suppress(TimeoutError):
            await finish(announcer.say_goodbye(), within_s=GOODBYE_S)


@asynccontextmanager
async def _hosting(
    model: SpanModel, checkpoint: Checkpoint, options: Options, transport: Transport
) -> AsyncIterator[Host]:
    """Pool, compute thread and sessions of a loaded span."""
    kv_tokens = options.kv_tokens or DEFAULT_KV_TOKENS
    spill = SpillStore(_spill_bytes())
    windows = await asyncio.to_thread(lambda: model.windows)
    pool = KVPool(kv_tokens * len(model.span), spill_to=spill, windows=windows)
    hosted = HostedModel(
        model.span,
        checkpoint.fingerprint,
        checkpoint.hidden_size,
        model.dtype,
        tuple(await asyncio.to_thread(model.kv_layout)),
    )
    log_bytes = max(64 << 20, 4 * kv_tokens * checkpoint.hidden_size)
    async with Executor(model, pool, num_threads=options.num_threads) as executor:
        host = Host(hosted, pool, executor, functools.partial(open_chain, transport), log_bytes)
        async with running(host.run_forever()):
            yield host


def _spill_bytes() -> int:
    return 4 << 30


def _open(options: Options, device: torch.device, say: Say) -> tuple[Checkpoint, int]:
    """The model, fingerprinted, and how many of its blocks to host."""
    progress = SpokenProgress(say)
    checkpoint = open_checkpoint(options.model, progress=progress)
    checkpoint.find_fingerprint(progress)
    return checkpoint, _num_blocks(checkpoint, options, device)


def _num_blocks(checkpoint: Checkpoint, options: Options, device: torch.device) -> int:
    """How many blocks to host: what was asked for, or what fits. Raises ConfigError if it cannot be."""
    total = checkpoint.num_blocks
    if options.blocks is not None:
        if options.blocks.end > total:
            raise ConfigError(
                f"{checkpoint.name} has blocks 0:{total}; --blocks {options.blocks} is outside of them"
            )
        return len(options.blocks)
    if options.num_blocks is not None:
        return min(options.num_blocks, total)
    size = block_size(checkpoint, options.dtype, options.quantization)
    kv_tokens = options.kv_tokens or DEFAULT_KV_TOKENS
    fitting = plan_num_blocks(free_memory_bytes(device), size, kv_tokens, total)
    if not fitting:
        needed_gib = size.bytes_with(kv_tokens) / 2**30
        smaller = _what_makes_smaller(checkpoint, options)
        raise ConfigError(
            f"not one block fits: with room for {kv_tokens} tokens it needs {needed_gib:.1f} GiB of free "
            f"memory; free some, lower --kv-tokens{f', or add {smaller}' if smaller else ''}"
        )
    return fitting


def _what_makes_smaller(checkpoint: Checkpoint, options: Options) -> str:
    """The option that lets blocks take less memory than now, "" if there is none."""
    if resolve_quantization(checkpoint, "none") != "none":
        return ""  # they are stored quantized, and stay so
    left: dict[Quantization, str] = {"none": "--quantization int8 or nf4", "int8": "--quantization nf4"}
    return left.get(options.quantization, "")


async def _join(
    transport: Transport, dht: Dht, announced: Announced, num_blocks: int, wanted: Span | int
) -> Announcer:
    """Choose a span (or take the one wanted) and announce that we are about to host it.

    Of servers that join at the same moment and chose the same blocks, one gives way and chooses again.
    """

    async def announce(span: Span) -> Announcer:
        announcer = Announcer(transport, dht, dataclasses.replace(announced, span=span))
        await announcer.announce_now()
        return announcer

    if isinstance(wanted, Span):
        return await announce(wanted)
    servers = await _find_servers(dht, announced.fingerprint)
    announcer = await announce(plan_span(servers, num_blocks, wanted, UNKNOWN_THROUGHPUT))
    if not dht.num_peers:
        return announcer
    await asyncio.sleep(SETTLE_S)
    servers = await _find_servers(dht, announced.fingerprint)
    if not must_plan_again(announcer.record(), servers):
        return announcer
    others = [server for server in servers if server.peer != transport.peer_id]
    return await announce(plan_span(others, num_blocks, wanted, UNKNOWN_THROUGHPUT))


async def _find_servers(dht: Dht, fingerprint: str) -> tuple[ServerRecord, ...]:
    """Who is there already. Asks again if the DHT stumbles; raises SwarmError if it still does at last."""
    for pause_s in LOOK_AGAIN_S:
        try:
            return await dht.find_servers(fingerprint)
        except SwarmError as error:
            logger.warning("%s; trying again in %d s", error, pause_s)
        await asyncio.sleep(pause_s)
    return await dht.find_servers(fingerprint)


def _load(checkpoint: Checkpoint, span: Span, options: Options, device: torch.device, say: Say) -> SpanModel:
    """Load the span and compare it with stock transformers."""
    torch.set_num_threads(options.num_threads)
    loaded = load_span(
        checkpoint,
        span,
        dtype=options.dtype,
        device=device,
        quantization=options.quantization,
        progress=SpokenProgress(say),
    )
    model = SpanModel(loaded, span)
    say("checking that they compute what transformers computes")
    verify_span(model)
    return model
