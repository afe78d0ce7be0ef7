"""What a bot asks to hear, and what must be approved by Discord first."""

from enum import IntFlag


class Intent(IntFlag):
    """Bits of IDENTIFY's `intents`."""

    NONE = 0
    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_MESSAGE_REACTIONS = 1 << 10
    GUILD_MESSAGE_TYPING = 1 << 11
    DIRECT_MESSAGES = 1 << 12
    DIRECT_MESSAGE_REACTIONS = 1 << 13
    DIRECT_MESSAGE_TYPING = 1 << 14
    MESSAGE_CONTENT = 1 << 15


KNOWN_BITS = (1 << 26) - 1
PRIVILEGED = Intent.GUILD_MEMBERS | Intent.GUILD_PRESENCES | Intent.MESSAGE_CONTENT
# The application's flags say the same thing with other bits; these are for bots in fewer than 100 guilds.
APPLICATION_FLAGS = {
    Intent.GUILD_PRESENCES: 1 << 13,
    Intent.GUILD_MEMBERS: 1 << 15,
    Intent.MESSAGE_CONTENT: 1 << 19,
}


def application_flags(approved: Intent) -> int:
    return sum(flag for intent, flag in APPLICATION_FLAGS.items() if approved & intent)


def intent_of_message(in_guild: bool) -> Intent:
    return Intent.GUILD_MESSAGES if in_guild else Intent.DIRECT_MESSAGES


def intent_of_reaction(in_guild: bool) -> Intent:
    return Intent.GUILD_MESSAGE_REACTIONS if in_guild else Intent.DIRECT_MESSAGE_REACTIONS


def intent_of_typing(in_guild: bool) -> Intent:
    return Intent.GUILD_MESSAGE_TYPING if in_guild else Intent.DIRECT_MESSAGE_TYPING
