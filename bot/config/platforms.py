"""The sections of the platforms: [discord] and [matrix]. Pure.

A secret `x` is what was found in the end; `x_env` and `x_file` tell where to look for it.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bot.config.fields import (
    NO_SECRET,
    AnyPath,
    DiscordIds,
    Homeserver,
    MatrixPeople,
    MatrixRooms,
    OwnUser,
    Secret,
    SecretEnv,
    SecretFile,
    Section,
)


class DiscordSettings(Section):
    """[discord]: an account, how it behaves there, and who may use it. An empty list of allowed ids: all."""

    enabled: bool = False
    token: Secret = NO_SECRET
    token_env: SecretEnv = "DISCORD_TOKEN"
    token_file: SecretFile = ""
    message_content: bool = True
    """Ask for the intent; without it the bot reads only mentions, direct messages and commands."""
    threads: bool = False
    direct_messages: bool = True
    allowed_channels: DiscordIds = ()
    denied_channels: DiscordIds = ()
    allowed_users: DiscordIds = ()
    denied_users: DiscordIds = ()
    allowed_roles: DiscordIds = ()
    denied_roles: DiscordIds = ()
    seen_reaction: bool = False
    ping_on_reply: bool = False


class MatrixSettings(Section):
    """[matrix]: an account, how it behaves there, and who may use it. An empty list of allowed ids: all."""

    enabled: bool = False
    homeserver: Homeserver = ""
    user: OwnUser = ""
    password: Secret = NO_SECRET
    """Only for logging in; the terminal is asked if there is none."""
    password_env: SecretEnv = "MATRIX_PASSWORD"
    password_file: SecretFile = ""
    store: AnyPath = Path("matrix-store")
    """A folder for keys of devices, cross-signing and the access token."""
    store_secret: Secret = NO_SECRET
    """Encrypts what is in `store`."""
    store_secret_env: SecretEnv = "MATRIX_STORE_SECRET"
    store_secret_file: SecretFile = ""
    threads: bool = True
    direct_messages: bool = True
    seed_controls: bool = False
    read_receipts: bool = True
    allowed_inviters: MatrixPeople = ()
    """Whose invitations are followed; empty: those of the bot's own server."""
    allowed_users: MatrixPeople = ()
    denied_users: MatrixPeople = ()
    allowed_rooms: MatrixRooms = ()
    denied_rooms: MatrixRooms = ()
    max_rooms: Annotated[int, Field(ge=1, le=10_000)] = 200
    send_burst: Annotated[int, Field(ge=5, le=10_000)] = 10
    """Events that the homeserver takes from this account at once."""
    sends_per_second: Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)] = 0.2
    """And then so many, for all rooms together."""
