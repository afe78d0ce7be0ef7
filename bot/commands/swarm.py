"""Commands about the swarm: how it is, which models there are, and how to add a server."""

from collections.abc import Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from bot.clock import Clock
from bot.commands import coverage, joining
from bot.commands.desk import CommandDesk, Order
from bot.commands.named import conversation_of
from bot.survey import SessionState
from swarm.background import running
from swarm.errors import ConfigError, MurmurError

WITHIN_S = 8.0
NO_ANSWER = "The swarm did not say in time how it is; please ask again in a moment."

T = TypeVar("T")


async def status(desk: CommandDesk, order: Order) -> str:
    """The swarm, its speed, the person's session and place in the queue."""
    try:
        survey = await _in_time(desk.desk.clock, desk.brain.survey())
        swarm = [
            coverage.headline(survey),
            coverage.picture(survey.report),
            coverage.thin(survey),
            coverage.speed(survey),
        ]
    except (MurmurError, TimeoutError):
        swarm = [NO_ANSWER]
    mine = [coverage.session(await _state(desk, order)), _place(desk, order), f"Murmur {_version()}"]
    return "\n".join(filter(None, [*swarm, *mine]))


async def model_list(desk: CommandDesk, order: Order) -> str:
    """The models that are named in the configuration, as far as they are served."""
    try:
        found = await _in_time(desk.desk.clock, desk.brain.surveys())
    except (MurmurError, TimeoutError):
        return NO_ANSWER
    return "\n".join(coverage.listed(each, is_first=not number) for number, each in enumerate(found))


async def contribute(desk: CommandDesk, order: Order) -> str:
    """What somebody has to type to add a server, here and now."""
    text = order.arguments.get("memory")
    memory_bytes = None if text is None else joining.read_memory(text)
    if text is not None and memory_bytes is None:
        return joining.NO_MEMORY
    try:
        survey = await _in_time(desk.desk.clock, desk.brain.survey())
        sizes = {} if text is None else await _in_time(desk.desk.clock, desk.brain.block_sizes())
    except ConfigError:
        return "I cannot tell what a block of this model takes; `contribute` alone gives the command."
    except (MurmurError, TimeoutError):
        return NO_ANSWER
    return joining.instructions(survey, memory_bytes, sizes)


async def _in_time(clock: Clock, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Raises TimeoutError if that takes too long for somebody who waits in a chat."""
    async with running(_expire(clock)):
        return await work


async def _expire(clock: Clock) -> None:
    await clock.sleep(WITHIN_S)
    raise TimeoutError


async def _state(desk: CommandDesk, order: Order) -> SessionState:
    here = await desk.desk.store.read(conversation_of, order)
    return SessionState("none") if here is None else await desk.brain.session_state(here.conversation_id)


def _place(desk: CommandDesk, order: Order) -> str:
    running_here, waiting = desk.queue.turns_of(order.asker.account_id)
    ahead = [desk.queue.num_ahead(turn_id) for turn_id in waiting]
    return coverage.place(len(running_here), ahead, desk.queue.num_waiting)


def _version() -> str:
    try:
        return version("murmur")
    except PackageNotFoundError:
        return "(development)"
