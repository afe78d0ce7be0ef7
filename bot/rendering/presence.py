"""How the swarm is, in the few words that people see below the bot's name. Pure."""

from bot.survey import Survey

SLOW_TOKENS_PER_S = 1.0
READY = "ready"
SLOW = "slow"
NEEDS_SERVERS = "needs servers: {}contribute"


def presence_of(survey: Survey, prefix: str) -> str:
    """A swarm in a few words; commands begin with `prefix`."""
    if not survey.report.is_complete or survey.tokens_per_s <= 0:
        return NEEDS_SERVERS.format(prefix)
    return SLOW if survey.tokens_per_s < SLOW_TOKENS_PER_S else READY
