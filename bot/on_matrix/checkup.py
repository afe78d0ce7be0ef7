"""Matrix as `./murmur doctor` tries it: requests with the bot's token, no sync, no keys."""

from urllib.parse import quote

import aiohttp
import msgspec
from nio import AsyncClient, AsyncClientConfig

from bot.config.platforms import MatrixSettings
from bot.findings import Finding, failed, ok, warning
from bot.on_matrix.account import NotLoggedIn, Session, read_session
from bot.on_matrix.cross_signing import RESET
from bot.on_matrix.cross_signing_keys import is_signed
from bot.on_matrix.fields import Object, list_of, object_of, text_of
from bot.on_matrix.wire import LoggedOut, Wire
from bot.words import SendError

LOG_IN = "run ./murmur matrix login"
STOCK_PER_S = 0.2
WITHIN_S = 20.0
MAX_ANSWER_BYTES = 1 << 20


def address(settings: MatrixSettings) -> str:
    """Something that the homeserver answers, whoever asks."""
    return f"{settings.homeserver.rstrip('/')}/_matrix/client/versions"


async def check_matrix(settings: MatrixSettings) -> list[Finding]:
    """Whether the homeserver answers, knows us and shows our device as ours, and how often we may send."""
    server = await _versions(settings)
    if server.level == "FAILED":
        return [server]
    try:
        session = read_session(settings.store)
    except NotLoggedIn as error:
        return [server, failed("matrix token", str(error))]
    config = AsyncClientConfig(encryption_enabled=False, store_sync_tokens=False, max_limit_exceeded=0)
    client = AsyncClient(settings.homeserver, settings.user, config=config)
    try:
        client.restore_login(settings.user, session.device_id, session.access_token)
        return [server, *await _account(Wire(client), settings, session)]
    finally:
        await client.close()


async def _versions(settings: MatrixSettings) -> Finding:
    asking = "is [matrix] homeserver right, and can it be reached from here?"
    try:  # without our token: a wrong one would be refused here already
        known = msgspec.json.decode(await _fetched(address(settings)), type=Object)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return failed("matrix", f"{settings.homeserver} did not answer ({type(error).__name__}): {asking}")
    except (msgspec.DecodeError, RecursionError):
        return failed("matrix", f"{settings.homeserver} answers, but not as a homeserver does: {asking}")
    versions = [text_of(each, 20) for each in list_of(known.get("versions"))]
    if not any(each.startswith("v1.") for each in versions):
        return failed("matrix", "the homeserver is older than Matrix 1.1: use another, or have it updated")
    return ok("matrix", f"{settings.homeserver} answers")


async def _fetched(url: str) -> bytes:
    """What is at an address, or its beginning."""
    raw = bytearray()
    limit = aiohttp.ClientTimeout(total=WITHIN_S)
    async with aiohttp.ClientSession(timeout=limit) as http, http.get(url, allow_redirects=False) as answer:
        async for chunk in answer.content.iter_chunked(1 << 16):
            raw += chunk
            if len(raw) > MAX_ANSWER_BYTES:
                break
    return bytes(raw)


async def _account(wire: Wire, settings: MatrixSettings, session: Session) -> list[Finding]:
    if (session.homeserver, session.user_id) != (settings.homeserver, settings.user):
        return [failed("matrix token", f"matrix.store belongs to another account or homeserver: {LOG_IN}")]
    try:
        known = await wire.ask("GET", "/account/whoami")
    except LoggedOut:
        return [failed("matrix token", f"the homeserver does not know the bot's session any more: {LOG_IN}")]
    except SendError as error:
        return [failed("matrix token", f"{error}; try again")]
    if text_of(known.get("user_id")) != settings.user:
        return [failed("matrix token", f"the token in matrix.store is that of somebody else: {LOG_IN}")]
    token = ok("matrix token", f"the homeserver knows {settings.user}, device {session.device_id}")
    return [token, await _device(wire, session), await _limits(wire, settings)]


async def _device(wire: Wire, session: Session) -> Finding:
    try:
        keys = await wire.ask("POST", "/keys/query", {"device_keys": {session.user_id: []}})
    except SendError as error:
        return failed("matrix device", f"{error}; try again")
    if is_cross_signed(keys, session.user_id, session.device_id):
        return ok("matrix device", "the bot's device is signed by its account")
    return warning(
        "matrix device",
        "the bot's device is not signed by its account, so that strict clients neither hear nor answer it: "
        f"./murmur bot signs it when it starts; if it says that it may not, {RESET}",
    )


def is_cross_signed(keys: Object, user_id: str, device_id: str) -> bool:
    """Whether a device has the signature of its account, in an answer about keys."""
    device = object_of(object_of(object_of(keys.get("device_keys")).get(user_id)).get(device_id))
    signing = object_of(object_of(keys.get("self_signing_keys")).get(user_id))
    named = [text_of(key) for key in object_of(signing.get("keys")).values()]
    return any(key and is_signed(device, user_id, f"ed25519:{key}", key) for key in named)


async def _limits(wire: Wire, settings: MatrixSettings) -> Finding:
    """What the account may send; only admins are told, so else it is what the settings say."""
    path = f"/_synapse/admin/v1/users/{quote(settings.user, safe='')}/override_ratelimit"
    try:
        override: Object | None = await wire.look_up(path)
    except SendError:  # we are no admin, or it is no Synapse
        override = None
    if settings.sends_per_second > STOCK_PER_S:
        return ok("matrix limits", f"the bot sends {settings.sends_per_second:g} events a second at most")
    if override:
        return warning("matrix limits", "the homeserver's limit was lifted: raise [matrix] sends_per_second")
    return warning(
        "matrix limits",
        f"the bot sends only {settings.sends_per_second:g} events a second, as stock homeservers allow: have "
        f"an admin POST {path} with messages_per_second 0 and burst_count 0, then raise [matrix] send_burst "
        "and sends_per_second",
    )
