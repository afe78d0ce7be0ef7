"""The bot's keys on Matrix as `./murmur doctor` tries them: read with the secret, and nothing is changed."""

import asyncio

from bot.config.mistakes import safe
from bot.config.platforms import MatrixSettings
from bot.findings import Finding, failed, ok
from bot.on_matrix.account import SEEDS_FILE, SESSION_FILE, NotLoggedIn, Session, read_session
from bot.on_matrix.key_files import KeysUnusable, check_keys
from bot.on_matrix.signing_seeds import SeedsUnusable

CHECK = "matrix keys"


async def check_matrix_keys(settings: MatrixSettings) -> list[Finding]:
    """Whether store_secret opens the device's keys and the seeds of cross-signing, if they are there."""
    if not settings.store_secret.get_secret_value():  # whatever keys lie there, the bot does not read them
        return [ok(CHECK, "none are needed: without a store_secret the bot does not encrypt")]
    return [await asyncio.to_thread(_look, settings)]


def _look(settings: MatrixSettings) -> Finding:
    folder, secret = settings.store, settings.store_secret.get_secret_value()
    try:
        session = _session(settings)
        seeds_file = folder / SEEDS_FILE
        are_there = check_keys(folder, seeds_file, session.user_id, session.device_id, secret)
    except (NotLoggedIn, KeysUnusable, SeedsUnusable) as error:
        return failed(CHECK, str(error))
    except OSError as error:
        return failed(CHECK, f"{safe(str(folder))} cannot be looked at: {error.strerror}; check who owns it")
    if not are_there:
        return ok(CHECK, "they are made at the first start")
    return ok(CHECK, "store_secret opens the device's keys and those that sign it")


def _session(settings: MatrixSettings) -> Session:
    """Whose keys there are; before the first login, of nobody's device. Raises NotLoggedIn, OSError."""
    if not (settings.store / SESSION_FILE).exists():  # that is told where the token is looked at
        return Session(settings.homeserver, settings.user, "", "")
    return read_session(settings.store)
