"""What admins' commands are carried out with, from a chat, the control socket or the command line."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.clock import Clock
from bot.commands.naming import Mistaken
from bot.receiving.access import Access
from storage.access import Deed, note_deed
from storage.amounts import Rates
from storage.database import Database, Transaction
from storage.transcript import open_turns

if TYPE_CHECKING:  # the command line has no bot, and need not wait for what one is made of
    from bot.commands.desk import CommandDesk, Order

Row = Mapping[str, str | int]
NO_BOT = "No bot is running, so there is nothing to do."


@dataclass(frozen=True, slots=True)
class Done:
    """What has come of a command, for people, and the same for programs where it is a list."""

    text: str
    rows: Sequence[Row] | None = None


@dataclass(frozen=True, slots=True)
class Office:
    """The store with all that belongs to it, and the bot that runs on it, if one does."""

    store: Database
    clock: Clock
    rates: Rates
    hash_key: bytes
    access: Access
    actor: str
    """Who gives the command: `matrix:@ada:example.org`, or `operator`."""
    bot: "CommandDesk | None" = None

    @property
    def running(self) -> "CommandDesk":
        """The bot that runs. Raises Mistaken if there is none."""
        if self.bot is None:
            raise Mistaken(NO_BOT)
        return self.bot

    async def change(self, deed: Deed, work: Callable[[Transaction], None] = lambda connection: None) -> None:
        """Write `work` and the deed down together, and let all who ask who may use the bot know it."""
        now_ms = self.clock.now_ms()

        def do(connection: Transaction) -> None:
            work(connection)
            note_deed(connection, deed, now_ms)

        await self.store.write(do)
        await self.access.load(self.store)

    def deed(self, action: str, target: str = "", detail: str = "") -> Deed:
        """Something that our actor does."""
        return Deed(self.actor, action, target, detail)

    async def stop_turns(self, account_id: int) -> bool:
        """End the answers that are being written for somebody; False if there are none."""
        if self.bot is None:
            return False
        turns = [said for said in await self.store.read(open_turns) if said.question.account_id == account_id]
        for said in turns:
            self.bot.stop(said.question.turn_id)
        return bool(turns)


Action = Callable[[Office, Mapping[str, str]], Awaitable[Done]]
"""Carries an admin's command out. Raises Mistaken."""


def needed(arguments: Mapping[str, str], name: str) -> str:
    """An argument that must be there. Raises Mistaken if it is not."""
    if name not in arguments:
        raise Mistaken(f"{name} is missing.")
    return arguments[name]


def office_of(bot: "CommandDesk", actor: str) -> Office:
    """The office of a bot that runs."""
    desk = bot.desk
    return Office(desk.store, desk.clock, desk.rates, desk.hash_key, desk.access, actor, bot)


def actor_of(order: "Order") -> str:
    """Who gives a command in a chat, as deeds name them."""
    return f"{order.inbound.where.platform}:{order.inbound.author.external_id}"


def in_chat(action: Action) -> Callable[["CommandDesk", "Order"], Awaitable[str]]:
    """An action as a command that somebody gives in a chat; whether they may was looked at before."""

    async def carry_out(bot: "CommandDesk", order: "Order") -> str:
        try:
            done = await action(office_of(bot, actor_of(order)), order.arguments)
        except Mistaken as error:
            return str(error)
        return done.text

    return carry_out
