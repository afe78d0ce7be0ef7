"""A Discord for tests, on 127.0.0.1: an unmodified discord.py talks to it, it refuses what Discord refuses.

server.py is where tests begin: open_fake_discord(), redirected(). people.py is what people do.
things.py, world.py, payloads.py: what there is, what changes it, how it is written.
rest.py and *_routes.py: the REST side; gateway.py: sessions and replay; limits.py: rate limits.
referee.py compares all of it with Discord's OpenAPI document, where that is present.
"""

from tests.discord_peer.clock import TurnableClock
from tests.discord_peer.commands import NotPossible
from tests.discord_peer.intents import PRIVILEGED, Intent
from tests.discord_peer.interaction import Interaction
from tests.discord_peer.limits import Limit
from tests.discord_peer.people import Person
from tests.discord_peer.permissions import Permission
from tests.discord_peer.server import FakeDiscord, open_fake_discord, redirected, redirected_to
from tests.discord_peer.things import Channel, Guild, Message, Role, User, Version

__all__ = [
    "PRIVILEGED",
    "Channel",
    "FakeDiscord",
    "Guild",
    "Intent",
    "Interaction",
    "Limit",
    "Message",
    "NotPossible",
    "Permission",
    "Person",
    "Role",
    "TurnableClock",
    "User",
    "Version",
    "open_fake_discord",
    "redirected",
    "redirected_to",
]
