"""The bot's account: logged in once, then taken up at every start with the token and device of that time.

A device's keys belong to its token. Who logs in anew has a new device, which people's clients must first
learn to trust; so the token is kept, beside the keys, where nobody else may read.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
from nio import AsyncClient, AsyncClientConfig, LoginResponse

from bot.clock import Clock
from bot.on_matrix.cross_signing import reset_identity, sign_own_device
from bot.on_matrix.key_files import close_databases, make_private, unreadable
from bot.on_matrix.sealing import Sealer
from bot.on_matrix.trying import Patience
from bot.on_matrix.wire import LoggedOut
from bot.words import SendError, Unreachable

SESSION_FILE = "session.json"
SEEDS_FILE = "cross-signing"
DEVICE_NAME = "Murmur"
MAX_SESSION_BYTES = 10_000


class NotLoggedIn(Exception):
    """There is no session that can be taken up; the text says in one sentence what the operator can do."""


class Session(msgspec.Struct, frozen=True):
    """A device that is logged in."""

    homeserver: str
    user_id: str
    device_id: str
    access_token: str


async def log_in(homeserver: str, user_id: str, password: str, folder: Path) -> None:
    """Log in on a new device and keep its token in `folder`.

    Raises NotLoggedIn if the homeserver does not let us, Unreachable if it does not answer.
    """
    with _usable(folder):
        make_private(folder)
    client = AsyncClient(homeserver, user_id, config=_config(""))
    try:
        answer = await client.login(password, device_name=DEVICE_NAME)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(f"the homeserver did not answer: {type(error).__name__}") from error
    finally:
        await client.close()
    if not isinstance(answer, LoginResponse):
        raise NotLoggedIn(_refused(user_id, str(answer.status_code or "no reason given")[:60]))
    session = Session(homeserver, answer.user_id, answer.device_id, answer.access_token)
    with _usable(folder):
        _write(folder / SESSION_FILE, msgspec.json.encode(session))


@contextlib.asynccontextmanager
async def open_account(
    homeserver: str, user_id: str, folder: Path, secret: str
) -> AsyncIterator[AsyncClient]:
    """The account as `log_in` left it, with its keys, which `secret` encrypts; nothing is sent yet.

    Raises NotLoggedIn if it cannot be taken up.
    """
    session = read_session(folder)
    if (session.homeserver, session.user_id) != (homeserver, user_id):
        raise NotLoggedIn(
            f"{folder} belongs to {session.user_id[:255]} on {session.homeserver[:255]}: "
            "log in anew with ./murmur matrix login"
        )
    with _usable(folder):
        make_private(folder)
        if secret:
            close_databases(folder, session.user_id, session.device_id)
    client = AsyncClient(homeserver, user_id, session.device_id, str(folder), _config(secret))
    try:
        _take_up(client, session, folder)
        yield client
    finally:
        await client.close()


async def introduce(client: AsyncClient, folder: Path, secret: str, clock: Clock) -> None:
    """Publish this device's keys and sign them for the account, as soon as the homeserver can be reached.

    Raises LoggedOut, IdentityRefused or SeedsUnusable if only the operator can help.
    """
    sealer, patience = Sealer(client), Patience(clock, "the device's keys cannot be published")
    while True:
        try:
            await sealer.keep_keys()
            await sign_own_device(client, folder / SEEDS_FILE, secret)
        except LoggedOut:
            raise
        except (SendError, TimeoutError) as error:
            await patience.wait(error)
        else:
            return patience.end()


async def replace_identity(client: AsyncClient, folder: Path, secret: str, password: str) -> None:
    """Give the account cross-signing keys of ours, also before the bot was ever started.

    Raises what `reset_identity` does, and SendError.
    """
    await Sealer(client).keep_keys()
    await reset_identity(client, folder / SEEDS_FILE, secret, password)


def _refused(user_id: str, code: str) -> str:
    """What the homeserver's error means, and what the operator can do."""
    if code == "M_LIMIT_EXCEEDED":
        return (
            f"the homeserver has had too many attempts to log {user_id} in: wait some minutes and try again"
        )
    return (
        f"the homeserver refused to log {user_id} in ({code!r}): check [matrix] user and the password; where"
        " people log in by single sign-on alone the bot's account has no password, and needs one"
    )


def _config(secret: str) -> AsyncClientConfig:
    """Nothing is tried again by the library itself: it would do so for ever."""
    return AsyncClientConfig(
        encryption_enabled=bool(secret),
        store_sync_tokens=False,
        pickle_key=secret,
        max_limit_exceeded=0,
        max_timeouts=0,
    )


def _take_up(client: AsyncClient, session: Session, folder: Path) -> None:
    """Read the device's keys. Raises NotLoggedIn if they cannot be read."""
    try:
        client.restore_login(session.user_id, session.device_id, session.access_token)
    except Exception as error:  # each library below has kinds of its own, some without a common base
        raise NotLoggedIn(unreadable(folder)) from error


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """Raises NotLoggedIn if what is done with the folder in the block cannot be done."""
    try:
        yield
    except OSError as error:
        raise NotLoggedIn(
            f"{folder} cannot be used: {error.strerror}; see that there is room and who owns it, or name "
            "another folder with [matrix] store"
        ) from error


def read_session(folder: Path) -> Session:
    """What `log_in` has kept in `folder`. Raises NotLoggedIn if there is nothing that can be used."""
    path = folder / SESSION_FILE
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_SESSION_BYTES), type=Session)
    except FileNotFoundError:
        raise NotLoggedIn("the bot's Matrix account is not logged in: run ./murmur matrix login") from None
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise NotLoggedIn(f"{path} cannot be read: log in anew with ./murmur matrix login") from error


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)
