"""A running fake Discord: the REST side and the gateway on 127.0.0.1, and the handles that tests turn."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import yarl
from aiohttp import web
from discord.gateway import DiscordWebSocket
from discord.http import Route

from tests.discord_peer.calls import Call
from tests.discord_peer.clock import TurnableClock
from tests.discord_peer.gateway import Gateway
from tests.discord_peer.intents import PRIVILEGED, Intent
from tests.discord_peer.limits import EVERYTHING, Buckets, Limit
from tests.discord_peer.payloads import guild_create_json
from tests.discord_peer.people import Person
from tests.discord_peer.permissions import Permission
from tests.discord_peer.referee import load_referee
from tests.discord_peer.refusals import Refusal, TooManyRequests
from tests.discord_peer.rest import API, Plan, RestApi
from tests.discord_peer.things import Channel, Guild, Json, Message, Role, User
from tests.discord_peer.world import Event, World


class FakeDiscord:
    """One bot's whole Discord. All that is visible can be looked at; all that happens can be arranged."""

    def __init__(self, world: World, rest: RestApi, gateway: Gateway) -> None:
        self.world = world
        self.rest = rest
        self.gateway = gateway
        self.api_url = ""

    @property
    def bot(self) -> User:
        return self.world.bot

    @property
    def token(self) -> str:
        return self.world.token

    @property
    def clock(self) -> TurnableClock:
        return self.world.clock

    @property
    def findings(self) -> list[str]:
        """What the referee, and the fake itself, found wrong. Must be empty at the end of a test."""
        return self.world.findings

    @property
    def commands(self) -> dict[int, dict[int, Json]]:
        """Registered commands by guild id (0: everywhere) and command id."""
        return self.world.commands

    def user(self, name: str, *guilds: Guild, roles: tuple[Role, ...] = ()) -> Person:
        """A new person, a member of `guilds`."""
        person = Person(self.world, name)
        for guild in guilds:
            self.world.add_member(guild, person, roles)
        return person

    def guild(self, name: str = "Swarm", owner: User | None = None, with_bot: bool = True) -> Guild:
        """A new guild, of a silent owner unless one is given; the bot is told if it is a member."""
        guild = self.world.add_guild(name, owner or Person(self.world, "owner"))
        if with_bot:
            self.add_bot(guild)
        return guild

    def add_bot(self, guild: Guild) -> None:
        """Invite the bot."""
        self.world.add_member(guild, self.bot)
        self.world.tell(
            Event("GUILD_CREATE", lambda listener: guild_create_json(guild, listener), Intent.GUILDS)
        )

    def remove_bot(self, guild: Guild) -> None:
        """Throw the bot out."""
        del guild.members[self.bot.id]
        gone: Json = {"id": str(guild.id)}
        self.world.tell(Event("GUILD_DELETE", lambda _: gone, Intent.GUILDS))

    def channel(self, guild: Guild, name: str = "general") -> Channel:
        return self.world.add_channel(guild, name)

    def role(self, guild: Guild, name: str, *permissions: Permission) -> Role:
        allowed = Permission.NONE
        for permission in permissions:
            allowed |= permission
        return self.world.add_role(guild, name, allowed)

    def calls(self, route: str = "") -> list[Call]:
        """Requests so far, of one route or all, with their times and the status of their answers."""
        return [call for call in self.rest.calls if route in ("", call.route)]

    def private_messages(self) -> dict[int, list[Message]]:
        """Ephemeral answers by the id of the person who sees them."""
        people = [user for user in self.world.users.values() if isinstance(user, Person)]
        return {person.id: person.private for person in people if person.private}

    def limit_next(self, route: str, retry_after_s: float, times: int = 1, is_global: bool = False) -> None:
        """Answer the next requests on a route with 429. Raises ValueError if there is no such route."""
        self.rest.plan(Plan(route, times, TooManyRequests(retry_after_s, is_global)))

    def fail_next(self, route: str, status: int, times: int = 1, code: int = 0) -> None:
        """Answer the next requests on a route with an error. discord.py repeats 500, 502 and 504, slowly."""
        self.rest.plan(Plan(route, times, Refusal(code, status=status)))

    def lose_answer_of_next(self, route: str, times: int = 1) -> None:
        """Carry out the next requests on a route, and hang up instead of answering."""
        self.rest.plan(Plan(route, times, loses_answer=True))

    def delay_next(self, route: str, seconds: float, times: int = 1) -> None:
        """Let the next requests on a route wait before anything is done."""
        self.rest.plan(Plan(route, times, delay_s=seconds))

    async def drop_gateway(self, resume: bool, code: int = 4000) -> None:
        """Cut the bot off; it resumes its session, or must begin a new one and hears nothing of the gap.

        discord.py waits 5 s before a second IDENTIFY, unless the client's `before_identify_hook` does not.
        """
        await self.gateway.drop(resume, code)

    @contextmanager
    def gateway_held(self) -> Iterator[None]:
        """While the block runs nobody gets into the gateway; sockets that are open stay so."""
        self.gateway.open.clear()
        try:
            yield
        finally:
            self.gateway.open.set()

    async def until(self, is_so: Callable[[], Any], within_s: float = 5.0) -> None:
        """Wait until something is so. Raises TimeoutError if that takes longer than `within_s`."""
        async with asyncio.timeout(within_s):
            while not is_so():  # noqa: ASYNC110 - what tests wait for is not one event
                await asyncio.sleep(0.005)


@asynccontextmanager
async def open_fake_discord(
    approved: Intent = PRIVILEGED,
    limits: Mapping[str, Limit] | None = None,
    everything: Limit = EVERYTHING,
) -> AsyncIterator[FakeDiscord]:
    """A fake Discord that listens on a free port of 127.0.0.1 while the block runs.

    `approved` are the privileged intents that the bot was granted; `limits` replace those of single routes.
    """
    world = World(approved)
    referee = load_referee()
    rest = RestApi(world, Buckets(world.clock, limits or {}, everything), referee)

    def check_message(event: str, payload: Json) -> None:
        if referee is not None:
            world.findings.extend(referee.message_errors(event, payload))

    gateway = Gateway(world, check_message)
    world.tell = gateway.tell
    application = rest.application(gateway.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"127.0.0.1:{runner.addresses[0][1]}"
        fake = FakeDiscord(world, rest, gateway)
        fake.api_url = f"http://{address}{API}"
        world.files_url = f"http://{address}/files"
        gateway.url = world.gateway_url = f"ws://{address}/gateway"
        yield fake
        await gateway.drop(resume=False, code=1001)
    finally:
        gateway.open.set()
        await runner.cleanup()


@contextmanager
def redirected(fake: FakeDiscord) -> Iterator[None]:
    """Let discord.py in this process talk to `fake` while the block runs."""
    with redirected_to(fake.api_url, fake.gateway.url):
        yield


@contextmanager
def redirected_to(api_url: str, gateway_url: str) -> Iterator[None]:
    """The same in a process that knows only the addresses. The URL to resume at comes with READY."""
    before = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
    Route.BASE = api_url
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)
    try:
        yield
    finally:
        Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = before
