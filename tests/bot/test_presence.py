"""How the swarm is, below the bot's name."""

import pytest

from bot.rendering.presence import READY, SLOW, presence_of
from bot.survey import Survey
from tests.bot.surveys import THREE, survey

NEEDS_SERVERS = "needs servers: !contribute"


@pytest.mark.parametrize(
    ("swarm", "shown"),
    [
        (survey(*THREE, tokens_per_s=42.0), READY),
        (survey(*THREE, tokens_per_s=1.0), READY),
        (survey(*THREE, tokens_per_s=0.4), SLOW),
        (survey(*THREE, tokens_per_s=0.0), NEEDS_SERVERS),
        (survey(*THREE[:2], tokens_per_s=42.0), NEEDS_SERVERS),
        (survey(num_peers=0), NEEDS_SERVERS),
    ],
)
def test_a_swarm_in_a_few_words(swarm: Survey, shown: str) -> None:
    assert presence_of(swarm, "!") == shown
