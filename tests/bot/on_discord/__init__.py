"""The bot on Discord, on the fake Discord of tests/discord_peer, the real core and a script for a model."""
