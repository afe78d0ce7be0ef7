"""All that can be set, section by section, with defaults and bounds. Pure: no file, no environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bot.config.fields import (
    MAX_MESSAGE_LETTERS,
    MAX_PERSONA_LETTERS,
    Admins,
    AnyPath,
    Host,
    Models,
    Name,
    Notice,
    Peers,
    Persona,
    Port,
    Prefix,
    Section,
    SocketPath,
)
from bot.config.platforms import DiscordSettings, MatrixSettings

IDENTITY_OPTION = "[swarm] identity_file"
"""What names the bot's key in the swarm, in sentences."""
PERSONA = "You are {name}, a friendly member of this room. Answer briefly."
NOTICE = "Volunteers' servers compute my answers and could read what you write: tell me no secrets."


class BotSettings(Section):
    """[bot]: who it is and how it answers, where nobody has set something else."""

    name: Name = "Murmur"
    persona: Persona = PERSONA
    """What it is told to be; `{name}` stands for its name."""
    command_prefix: Prefix = "!"
    admins: Admins = ()
    streaming: bool = True
    """Show answers while they are written."""
    show_thinking: bool = False
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.7
    """0: always the likeliest token."""
    top_p: Annotated[float, Field(ge=0.01, le=1, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0: all tokens."""
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] = 1.0


class SwarmSettings(Section):
    """[swarm]: which models, through whom they are found, and how many sessions are kept open on servers."""

    models: Models = ()
    """The first one answers; the bot holds the two ends of each."""
    initial_peers: Peers = ()
    identity_file: AnyPath = Path("bot.key")
    persona_sessions: Annotated[int, Field(ge=0, le=1000)] = 8
    live_sessions: Annotated[int, Field(ge=1, le=10_000)] = 50
    park_after_minutes: Annotated[int, Field(ge=1, le=1440)] = 30


class LimitsSettings(Section):
    """[limits]: how much one message, one person and everybody together may ask for."""

    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Of one answer; people may set less."""
    context_tokens: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Of a conversation; 0: what the model takes."""
    message_letters: Annotated[int, Field(ge=100, le=MAX_MESSAGE_LETTERS)] = 8000
    persona_letters: Annotated[int, Field(ge=0, le=MAX_PERSONA_LETTERS)] = 2000
    """Of a persona that people set."""
    attachment_bytes: Annotated[int, Field(ge=0, le=1_048_576)] = 65_536
    """Of a text file; 0: none is read."""
    running: Annotated[int, Field(ge=1, le=10_000)] = 50
    queued: Annotated[int, Field(ge=0, le=100_000)] = 500
    running_per_user: Annotated[int, Field(ge=1, le=100)] = 1
    queued_per_user: Annotated[int, Field(ge=0, le=100)] = 2
    queued_per_conversation: Annotated[int, Field(ge=0, le=100)] = 3
    message_burst: Annotated[int, Field(ge=1, le=1000)] = 5
    """Messages and commands of a person at once."""
    messages_per_minute: Annotated[int, Field(ge=1, le=1000)] = 12
    ignore_after: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Messages in a row that were too many: then the person is ignored for a while."""
    ignore_minutes: Annotated[int, Field(ge=1, le=10_080)] = 10
    turn_seconds: Annotated[int, Field(ge=10, le=86_400)] = 600


class QuotaSettings(Section):
    """[quota]: credits; one pays for a token that is written."""

    daily_grant: Annotated[int, Field(ge=0, le=1_000_000_000)] = 20_000
    balance_cap: Annotated[int, Field(ge=0, le=1_000_000_000)] = 60_000
    prefill_percent: Annotated[int, Field(ge=0, le=100)] = 25
    least_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64
    credit: bool = False
    """People who run servers earn something; not there yet."""


class PrivacySettings(Section):
    """[privacy]: what people are told and how long it is remembered."""

    consent: Literal["notice", "ask"] = "notice"
    notice: Notice = NOTICE
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30


class StorageSettings(Section):
    """[storage]: where accounts, quotas and transcripts are kept."""

    path: AnyPath = Path("murmur.sqlite3")


class OpsSettings(Section):
    """[ops]: for those who run it."""

    metrics_host: Host = "127.0.0.1"
    metrics_port: Port = 0
    """0: no metrics and no health page."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    control_socket: SocketPath = Path("control.sock")


class Settings(Section):
    """All that an operator can set."""

    bot: BotSettings = BotSettings()
    discord: DiscordSettings = DiscordSettings()
    matrix: MatrixSettings = MatrixSettings()
    swarm: SwarmSettings = SwarmSettings()
    limits: LimitsSettings = LimitsSettings()
    quota: QuotaSettings = QuotaSettings()
    privacy: PrivacySettings = PrivacySettings()
    storage: StorageSettings = StorageSettings()
    ops: OpsSettings = OpsSettings()
