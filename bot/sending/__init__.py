"""How answers go out: the port to a platform, and when something may be sent."""
