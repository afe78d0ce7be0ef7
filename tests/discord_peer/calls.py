"""One REST request as its handler sees it, and the questions that most handlers ask first."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.discord_peer.permissions import Permission
from tests.discord_peer.refusals import Refusal, invalid_form
from tests.discord_peer.things import Attachment, Channel, Guild, Json, Message, User
from tests.discord_peer.world import World

Answer = tuple[int, Any]


@dataclass
class Call:
    """A request for one route; `params` are the parts of its path."""

    world: World
    route: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    files: list[Attachment] = field(default_factory=list)
    at_s: float = 0.0
    status: int = 0
    """Of the answer, once there is one."""

    @property
    def fields(self) -> Json:
        """The body, which must be an object. Raises Refusal if it is none."""
        if not isinstance(self.body, dict):
            raise invalid_form("_errors", "MODEL_TYPE_CONVERT", "Only dictionaries may be used")
        return self.body

    def number(self, name: str) -> int:
        """An id in the path. Raises Refusal if it is no number."""
        text = self.params[name]
        if not text.isdecimal():
            raise invalid_form(name, "NUMBER_TYPE_COERCE", f'Value "{text[:20]}" is not snowflake.')
        return int(text)

    def guild(self) -> Guild:
        """The guild in the path. Raises Refusal if there is none, or the bot is not in it."""
        guild = self.world.guilds.get(self.number("guild_id"))
        if guild is None:
            raise Refusal(10004)
        if self.world.bot.id not in guild.members:
            raise Refusal(50001)
        return guild

    def user(self) -> User:
        user = self.world.users.get(self.number("user_id"))
        if user is None:
            raise Refusal(10013)
        return user

    def channel(self, *needs: Permission) -> Channel:
        """The channel in the path. Raises Refusal if the bot may not see it, or not do this."""
        channel = self.world.channels.get(self.number("channel_id"))
        if channel is None:
            raise Refusal(10003)
        allowed = channel.permissions_of(self.world.bot)
        if not allowed & Permission.VIEW_CHANNEL:
            raise Refusal(50001)
        if any(not allowed & permission for permission in needs):
            raise Refusal(50013)
        return channel

    def message(self, channel: Channel) -> Message:
        """The message in the path, if everybody sees it. Raises Refusal if not."""
        message = channel.all_messages.get(self.number("message_id"))
        if message is None or message.is_deleted or message.private_to is not None:
            raise Refusal(10008)
        return message


Handler = Callable[[Call], Awaitable[Answer]]
