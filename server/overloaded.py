"""What callers are told when a server cannot do their step now, but could in a moment."""

import logging

from server.devices import is_about_memory
from swarm.errors import MurmurError

logger = logging.getLogger(__name__)


class Overloaded(MurmurError):
    """Too many works wait already, or memory is short: the caller is answered `busy`."""


def as_told(error: Exception) -> Exception:
    """Return what a step's caller is told of `error`: of memory that was short, that it is for now."""
    if not is_about_memory(error):
        return error
    logger.warning("memory was too short for a step: %s", str(error).split("\n", 1)[0])
    busy = Overloaded("this server is short of memory; try again in a moment")
    busy.__cause__ = error
    return busy
