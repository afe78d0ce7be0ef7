"""Buttons below answers. Their ids carry all that is needed, so they work after a restart as well."""

import re

import discord

from bot.words import Post

LABELS = {"stop": "Stop", "retry": "Retry", "continue": "Continue"}
STYLES = {"stop": discord.ButtonStyle.danger, "continue": discord.ButtonStyle.primary}
MAX_LETTERS = 100
_ID = r"(?P<command>[a-z]{1,16}):(?P<turn>[0-9a-f]{1,40}):(?P<key>[a-z2-7]{0,25})"
BUTTON_EVENT = "turn_button"

Plain = discord.ui.Button[discord.ui.View]


class TurnButton(discord.ui.DynamicItem[Plain], template=_ID):
    """A command for one turn. `key` names the message that it is below."""

    def __init__(self, command: str, turn_id: str, key: str) -> None:
        style = STYLES.get(command, discord.ButtonStyle.secondary)
        label = LABELS.get(command, command.capitalize())
        super().__init__(Plain(label=label, style=style, custom_id=f"{command}:{turn_id}:{key}"))
        self.command = command
        self.turn_id = turn_id

    @classmethod
    async def from_custom_id(
        cls,
        interaction: discord.Interaction[discord.Client],
        item: discord.ui.Item[discord.ui.View],
        match: re.Match[str],
        /,
    ) -> "TurnButton":
        """A button that was pressed, whoever has made it."""
        return cls(match["command"], match["turn"], match["key"])

    async def callback(self, interaction: discord.Interaction[discord.Client]) -> None:
        """Let the client know."""
        interaction.client.dispatch(BUTTON_EVENT, interaction, self.command, self.turn_id)


def view_of(post: Post) -> discord.ui.View | None:
    """What can be pressed below a message; None if nothing can."""
    if not post.controls or not post.turn_id:
        return None
    view = discord.ui.View(timeout=None)
    for command in post.controls:
        view.add_item(TurnButton(command, post.turn_id, post.key))
    return view


def key_below(message: discord.Message) -> str | None:
    """The key of a message of ours, if it has a button."""
    rows = (row for row in message.components if isinstance(row, discord.ActionRow))
    ids = (getattr(item, "custom_id", None) for row in rows for item in row.children)
    matches = (re.fullmatch(_ID, custom_id) for custom_id in ids if custom_id)
    return next((match["key"] for match in matches if match), None)
