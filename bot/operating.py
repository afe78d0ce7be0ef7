"""The bots of one configuration, from their start to their end: store, swarm, core, platforms.

Whoever stops them is obeyed in peace: nothing new is begun, what runs is finished or cut off with a note, and
what people say meanwhile is kept and answered after the next start.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Any

from bot.clock import Clock, RealClock
from bot.config.models import IDENTITY_OPTION, NOTICE, BotSettings, Settings
from bot.control import open_control
from bot.core import Core, Rules, open_core, open_desk
from bot.observing.coverage import swarm_trouble
from bot.observing.watched import Watched
from bot.observing.watching import open_watch
from bot.receiving.access import Access
from bot.receiving.haste import Patience
from bot.receiving.limits import Letters
from bot.sending.outbound import Outbound
from bot.sessions.brain import open_brain
from bot.sessions.pool import Limits
from bot.turns.bookkeeping import Wishes
from bot.turns.limits import TurnLimits
from bot.turns.queue import Bounds
from bot.vitals import Vitals
from storage.amounts import Rates
from storage.database import Database, open_database
from storage.errors import StorageError, StoreBusy
from storage.hash_key import load_hash_key
from storage.rate import Rate
from swarm.background import finish, running
from swarm.checkpoint.progress import SpokenProgress
from swarm.client import Murmur, SwarmModel, join
from swarm.errors import ConfigError, NobodyAnswers, SwarmError
from swarm.identity import load_identity
from swarm.loop import spare_what_is_loaded
from swarm.sampling_params import SamplingParams
from swarm.say import is_terminal, say

logger = logging.getLogger(__name__)

SPARE_S = 15.0
JOIN_AGAIN_S = (5.0, 15.0, 30.0)
MOST_JOIN_AGAIN_S = 60.0
Join = Callable[..., AbstractAsyncContextManager[Murmur]]
NoteWaiting = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that is enabled: its port, and what hears for the core until it is cancelled."""

    port: Outbound
    listen: Callable[[Core], Coroutine[Any, Any, None]]
    vitals: Callable[[], Vitals]


async def run_bot(settings: Settings) -> None:
    """Answer people on every platform that is enabled, until cancelled. Raises ConfigError, SystemExit."""
    if not (settings.discord.enabled or settings.matrix.enabled):
        raise ConfigError("no platform is enabled: set enabled = true in [discord] or [matrix]")
    clock = RealClock()
    with ended_with_a_sentence():
        hash_key = load_hash_key(settings.storage.path)
        access = Access(clock, settings.bot.admins, hash_key)
        async with (
            open_watch(settings.ops) as watch,
            open_database(settings.storage.path) as store,
            open_model(settings, note_waiting=watch.note_waiting) as model,
            open_brain(
                model, store, clock, limits_of(settings), watch.metrics, settings.swarm.models[1:]
            ) as brain,
            open_platforms(settings, store, clock, access) as platforms,
        ):
            spare_what_is_loaded()
            rules = rules_of(settings)
            desk = open_desk(store, clock, hash_key, rules, access)
            ports = {name: platform.port for name, platform in platforms.items()}
            boot = secrets.token_hex(8)
            measures = watch.metrics
            async with open_core(desk, brain, ports, boot=boot, rules=rules, measures=measures) as core:
                vitals = {name: platform.vitals for name, platform in platforms.items()}
                trouble = partial(swarm_trouble, model.network)
                watch.begin(Watched(store, clock, vitals, core, brain.pool, trouble))
                async with open_control(settings.ops.control_socket, core.commands):
                    await serve(core, platforms, settings.ops.drain_seconds, watch.note_stopping)


@contextmanager
def ended_with_a_sentence() -> Iterator[None]:
    """Turn what ends the bot into ConfigError if the operator has to mend it, else into SystemExit.

    That has the sentence, and status 1: what goes away by itself does so while a supervisor starts us again.
    """
    try:
        yield
    except (StoreBusy, SwarmError) as error:
        raise SystemExit(f"murmur bot: {error}") from error
    except StorageError as error:
        raise ConfigError(str(error)) from error


async def serve(
    core: Core, platforms: dict[str, Platform], drain_s: float, note_stopping: Callable[[], None]
) -> None:
    """Hear what people say until cancelled, then let what runs end. Raises what a platform raises."""
    async with running(*(platform.listen(core) for platform in platforms.values())):
        logger.info("ready on %s", ", ".join(platforms))
        try:
            await core.must_leave.wait()
        finally:
            note_stopping()
            await finish(core.drain(drain_s), within_s=drain_s + SPARE_S)


def rules_of(settings: Settings) -> Rules:
    """What the core has to obey."""
    bot, limits, quota = settings.bot, settings.limits, settings.quota
    params = SamplingParams(
        temperature=bot.temperature,
        top_p=bot.top_p,
        top_k=bot.top_k,
        repetition_penalty=bot.repetition_penalty,
        max_new_tokens=limits.max_new_tokens,
    )
    return Rules(
        rates=Rates(quota.daily_grant, quota.balance_cap, quota.prefill_percent, quota.least_new_tokens),
        bounds=Bounds(
            running=limits.running,
            waiting=limits.queued,
            waiting_in_conversation=limits.queued_per_conversation,
            running_of_person=limits.running_per_user,
            waiting_of_person=limits.queued_per_user,
        ),
        rate=Rate(burst=limits.message_burst, interval_ms=60_000 // limits.messages_per_minute),
        patience=Patience(limits.ignore_after, 60_000 * limits.ignore_minutes),
        wishes=Wishes(params, persona_of(bot), bot.streaming, bot.show_thinking),
        place_notice=settings.privacy.notice,
        attachment_bytes=limits.attachment_bytes,
        person_notice="`privacy` tells what is kept of you, and who can read it",
        retention_days=settings.privacy.retention_days,
        turn=TurnLimits(limits.turn_seconds, limits.context_tokens),
        letters=Letters(limits.message_letters, limits.persona_letters),
        consent_notice=(settings.privacy.notice or NOTICE) if settings.privacy.consent == "ask" else "",
    )


def persona_of(bot: BotSettings) -> str:
    """What the model is told to be, where nobody has chosen another persona."""
    return bot.persona.replace("{name}", bot.name)


def limits_of(settings: Settings) -> Limits:
    """How many sessions are kept open."""
    swarm = settings.swarm
    return Limits(
        live=swarm.live_sessions, personas=swarm.persona_sessions, idle_s=60.0 * swarm.park_after_minutes
    )


@asynccontextmanager
async def open_model(
    settings: Settings, join_swarm: Join = join, note_waiting: NoteWaiting = lambda reason: None
) -> AsyncIterator[SwarmModel]:
    """The swarm, and the two ends of the model that answers; tells how far they are. Raises ConfigError.

    While none of the initial peers answers it waits for one, and `note_waiting` is told why.
    """
    swarm = settings.swarm
    identity = load_identity(swarm.identity_file, IDENTITY_OPTION)
    # Elsewhere than on a terminal, how far it is belongs in the log, in its format.
    speak: Callable[[str], None] = say if is_terminal() else logger.info
    joining = partial(join_swarm, swarm.initial_peers, identity=identity)
    async with join_patiently(joining, RealClock(), note_waiting) as joined:
        yield await joined.load(swarm.models[0], progress=SpokenProgress(speak))


@asynccontextmanager
async def join_patiently(
    joining: Join, clock: Clock, note_waiting: NoteWaiting = lambda reason: None
) -> AsyncIterator[Murmur]:
    """The swarm, as soon as one of its initial peers answers: they may be restarted just now, as we are.

    Raises ConfigError for any other reason.
    """
    async with AsyncExitStack() as stack:
        for wait_s in chain(JOIN_AGAIN_S, repeat(MOST_JOIN_AGAIN_S)):
            try:
                joined = await stack.enter_async_context(joining())
            except NobodyAnswers as error:
                logger.warning("%s; I try again in %.0f s", error, wait_s)
                note_waiting(f"the bot waits for its swarm: {error}")
                await clock.sleep(wait_s)
            else:
                note_waiting("")
                break
        yield joined


@asynccontextmanager
async def open_platforms(
    settings: Settings, store: Database, clock: Clock, access: Access
) -> AsyncIterator[dict[str, Platform]]:
    """Those that are enabled; the libraries of the others are not even imported. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        platforms: dict[str, Platform] = {}
        if settings.discord.enabled:
            from bot.on_discord.platform import open_platform as open_discord

            opened = await stack.enter_async_context(open_discord(settings.discord, store, clock, access))
            platforms["discord"] = Platform(*opened)
        if settings.matrix.enabled:
            from bot.on_matrix.platform import open_platform as open_matrix

            prefix = settings.bot.command_prefix
            opening = open_matrix(settings.matrix, prefix, store, clock, access)
            opened = await stack.enter_async_context(opening)
            platforms["matrix"] = Platform(*opened)
        yield platforms
