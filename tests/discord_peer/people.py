"""People whom a test lets speak, press and look, as far as Discord's client would let them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.discord_peer.checks import CHAT_COMMAND, MESSAGE_COMMAND, utf16_units
from tests.discord_peer.commands import (
    NotPossible,
    chat_data,
    find_command,
    is_only_user_install,
    target_data,
)
from tests.discord_peer.intents import PRIVILEGED
from tests.discord_peer.interaction import (
    AUTOCOMPLETE,
    COMMAND,
    COMPONENT,
    MODAL_SUBMIT,
    Interaction,
    modal_fields,
)
from tests.discord_peer.payloads import Listener, channel_json, member_json, message_json, user_json
from tests.discord_peer.permissions import Permission
from tests.discord_peer.things import Attachment, Channel, Json, Message, Role, User, Version
from tests.discord_peer.world import Event, World

MAX_TYPED_UNITS = 2_000


class Person(User):
    """A user with a will. What they do happens at once; the bot hears of it through its gateway."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.ids.next(), name)
        self._world = world
        world.add_user(self)

    @property
    def direct(self) -> Channel:
        """Their chat with the bot."""
        return self._world.direct_channel(self)

    @property
    def private(self) -> list[Message]:
        """What only they see, the oldest first."""
        found = [
            message
            for channel in self._world.channels.values()
            for message in channel.all_messages.values()
            if message.private_to is self and not message.is_deleted
        ]
        return sorted(found, key=lambda message: message.id)

    def sees(self, channel: Channel) -> list[Message]:
        """What a channel shows them: what everybody sees, and answers to them alone."""
        mine = [message for message in self.private if message.channel is channel]
        return sorted([*channel.messages, *mine], key=lambda message: message.id)

    def says(
        self,
        channel: Channel,
        text: str,
        mentions: Sequence[User | Role] = (),
        reply_to: Message | None = None,
        files: Mapping[str, bytes] | None = None,
        ago_s: float = 0.0,
    ) -> Message:
        """Post a message; `mentions` are put in front of the text unless it has them.

        A reply mentions whom it answers; `silently_replies` does not. `ago_s` dates the message back.
        Raises NotPossible if the person may not write here.
        """
        return self._post(channel, self._named(text, mentions), reply_to, None, files or {}, ago_s)

    def silently_replies(self, message: Message, text: str) -> Message:
        """Reply without mentioning the author."""
        mentions: Json = {"parse": ["users", "roles", "everyone"], "replied_user": False}
        return self._post(message.channel, text, message, mentions, {}, 0.0)

    def edits(self, message: Message, text: str) -> None:
        self._must(message.author is self, "edit only what they wrote")
        self._world.edit(message, Version(0.0, text, attachments=message.now.attachments))

    def deletes(self, message: Message) -> None:
        may = message.author is self or bool(
            message.channel.permissions_of(self) & Permission.MANAGE_MESSAGES and message.channel.guild
        )
        self._must(may, "delete only what they wrote")
        self._world.delete(message)

    def purges(self, channel: Channel, messages: Sequence[Message]) -> None:
        """Delete 2 to 100 messages at once, as a moderator's bot does."""
        may = channel.permissions_of(self) & Permission.MANAGE_MESSAGES and channel.guild
        self._must(bool(may) and 2 <= len(messages) <= 100, "delete many messages here")
        self._world.delete_many(channel, messages)

    def reacts(self, message: Message, emoji: str) -> None:
        self._must(not message.is_deleted, "react to what is there")
        self._world.react(message, self, emoji)

    def unreacts(self, message: Message, emoji: str) -> None:
        self._world.unreact(message, self, emoji)

    def types(self, channel: Channel) -> None:
        self._world.type_in(channel, self)

    def starts_thread(self, channel: Channel, name: str, at: Message | None = None) -> Channel:
        self._must(
            bool(channel.permissions_of(self) & Permission.CREATE_PUBLIC_THREADS), "start threads here"
        )
        return self._world.start_thread(channel, self, name, at)

    def runs(
        self,
        command: str,
        options: Mapping[str, Any] | None = None,
        *,
        channel: Channel,
        on: Message | None = None,
    ) -> Interaction:
        """Run a slash command ("settings set" names a subcommand), or with `on` one of a message's menu.

        Raises NotPossible if it is not registered, not offered to them here, or an option is wrong.
        """
        if on is not None:
            found = find_command(self._world, channel, self, command, MESSAGE_COMMAND)
            shown = message_json(on, self._world.files_url, Listener(self._world.bot, PRIVILEGED), deep=False)
            return self._interact(COMMAND, channel, target_data(found, on.id, _resolved(on, shown)))
        name, *words = command.split()
        found = find_command(self._world, channel, self, name, CHAT_COMMAND)
        return self._interact(COMMAND, channel, chat_data(found, words, dict(options or {}), channel.guild))

    def completes(self, command: str, option: str, typed: str, *, channel: Channel) -> Interaction:
        """Type into an option that the bot completes; its proposals are the interaction's `choices`."""
        found = find_command(self._world, channel, self, command, CHAT_COMMAND)
        known = next((one for one in found.get("options") or [] if one["name"] == option), None)
        self._must(known is not None and bool(known.get("autocomplete")), f"complete {option!r}")
        assert known is not None
        focused = {"name": option, "type": known["type"], "value": typed, "focused": True}
        data: Json = {"id": found["id"], "name": found["name"], "type": CHAT_COMMAND, "options": [focused]}
        return self._interact(AUTOCOMPLETE, channel, data)

    def presses(self, message: Message, button: str) -> Interaction:
        """Press a button, named by its custom id or its label. Raises NotPossible if it is not there."""
        self._must(message in self.sees(message.channel), "press what they see")
        for one in message.buttons:
            if button in (one.get("custom_id"), one.get("label")) and "custom_id" in one:
                self._must(not one.get("disabled"), f"press {button!r}, it is disabled")
                data: Json = {"custom_id": one["custom_id"], "component_type": 2, "id": one["id"]}
                return self._interact(COMPONENT, message.channel, data, message)
        raise NotPossible(f"no button {button!r}, only {[one.get('label') for one in message.buttons]}")

    def submits(self, opened: Interaction, values: Mapping[str, str]) -> Interaction:
        """Fill in the modal that an interaction opened; `values` are by custom id."""
        self._must(opened.modal is not None and opened.user is self, "fill in a form that is open")
        assert opened.modal is not None
        data: Json = {
            "custom_id": opened.modal["custom_id"],
            "components": modal_fields(opened.modal, dict(values)),
        }
        return self._interact(MODAL_SUBMIT, opened.channel, data, opened.source, opened)

    def _post(
        self,
        channel: Channel,
        text: str,
        reply_to: Message | None,
        mentions: Json | None,
        files: Mapping[str, bytes],
        ago_s: float,
    ) -> Message:
        sends = Permission.SEND_MESSAGES_IN_THREADS if channel.is_thread else Permission.SEND_MESSAGES
        self._must(bool(channel.permissions_of(self) & sends), "write here")
        self._must(utf16_units(text) <= MAX_TYPED_UNITS, "write more than 2,000 letters")
        at_s = self._world.clock.now_s() - ago_s
        attached = tuple(self._attachment(name, content) for name, content in files.items())
        version = Version(at_s, text, attachments=attached, allowed_mentions=mentions)
        message = Message(self._world.ids.next(ago_s), channel, self, [version], reply_to)
        return self._world.post(message)

    def _attachment(self, name: str, content: bytes) -> Attachment:
        is_text = name.endswith((".txt", ".md", ".py", ".json"))
        kind = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
        return Attachment(self._world.ids.next(), name, content, kind)

    def _named(self, text: str, mentions: Sequence[User | Role]) -> str:
        missing = [one.mention for one in mentions if one.mention not in text]
        return " ".join([*missing, text])

    def _must(self, is_possible: bool, what: str) -> None:
        if not is_possible:
            raise NotPossible(f"{self.name} cannot {what}")

    def _interact(
        self,
        kind: int,
        channel: Channel,
        data: Json,
        source: Message | None = None,
        opened_by: Interaction | None = None,
    ) -> Interaction:
        world = self._world
        new_id = world.ids.next()
        interaction = Interaction(
            new_id, f"interaction-token-{new_id}", kind, self, channel, world.clock.now_s(), data, source
        )
        interaction.opened_by = opened_by
        interaction.is_only_user_install = is_only_user_install(world, channel)
        world.interactions[interaction.token] = interaction
        payload = interaction_json(world, interaction)
        world.tell(Event("INTERACTION_CREATE", lambda _: payload))
        return interaction


def _resolved(message: Message, shown: Json) -> Json:
    return {"messages": {str(message.id): shown}}


def interaction_json(world: World, interaction: Interaction) -> Json:
    """What the bot is told."""
    channel, user = interaction.channel, interaction.user
    shown: Json = {
        "id": str(interaction.id),
        "application_id": str(world.bot.id),
        "type": interaction.kind,
        "token": interaction.token,
        "version": 1,
        "data": interaction.data,
        "channel_id": str(channel.id),
        "channel": channel_json(channel) | {"permissions": str(int(channel.permissions_of(user)))},
        "app_permissions": str(int(channel.permissions_of(world.bot))),
        "locale": "en-US",
        "entitlements": [],
        "authorizing_integration_owners": interaction.owners(),
        "context": 0 if channel.guild else 1,
        "attachment_size_limit": 10 * 1024 * 1024,
    }
    if interaction.source is not None:
        shown["message"] = world.shown(interaction.source)
    if channel.guild is None:
        return shown | {"user": user_json(user)}
    guild = channel.guild
    member = member_json(guild.members[user.id]) | {"permissions": str(int(channel.permissions_of(user)))}
    place: Json = {"id": str(guild.id), "locale": "en-US", "features": []}
    return shown | {"guild_id": str(guild.id), "guild": place, "guild_locale": "en-US", "member": member}
