"""`./murmur bot` on a fake Discord: `python -m tests.bot.on_discord.redirected API GATEWAY ARGUMENT...`."""

import sys

from bot.__main__ import main
from swarm.signals import leave_on_signals
from tests.discord_peer import redirected_to

if __name__ == "__main__":
    leave_on_signals(130)
    with redirected_to(*sys.argv[1:3]):
        sys.exit(main(sys.argv[3:]))
