"""The bot in Matrix rooms; the only folder that imports nio."""
