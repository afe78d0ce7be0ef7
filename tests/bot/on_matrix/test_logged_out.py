"""A token that is revoked: the bot ends with one sentence, and nothing that was asked is lost."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from bot.clock import RealClock
from bot.config.platforms import MatrixSettings
from bot.on_matrix.account import introduce, log_in, open_account, replace_identity
from bot.on_matrix.platform import open_platform
from bot.on_matrix.wire import LoggedOut, Wire, error_of
from bot.receiving.access import Access
from bot.words import SendError, Unreachable
from storage.database import open_database
from swarm.errors import ConfigError
from tests.bot.on_matrix.test_encrypted_rooms import SECRET, account
from tests.bot.on_matrix.world import Place, meet, open_bot, open_client
from tests.bot.surveys import FakeSurveys
from tests.matrix_peer.human import Human
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

__all__ = ("account",)

ANSWER = "word " * 20 + "the very end"
CORE = SimpleNamespace(commands=SimpleNamespace(brain=FakeSurveys()))
"""It never hears anything."""


@pytest.mark.parametrize("has_run", [False, True])
async def test_whoever_is_logged_out_before_the_start_is_told_what_to_do(
    synapse: Synapse, account: Account, tmp_path: Path, has_run: bool
) -> None:
    folder, clock = tmp_path / "matrix", RealClock()
    settings = MatrixSettings(
        homeserver=synapse.url, user=account.user_id, store=folder, store_secret=SecretStr(SECRET)
    )
    await log_in(synapse.url, account.user_id, account.password, folder)
    async with open_account(synapse.url, account.user_id, folder, SECRET) as client:
        if has_run:
            await introduce(client, folder, SECRET, clock)
        await Wire(client).ask("POST", "/logout")
    async with (
        open_database(tmp_path / "store.sqlite") as store,
        open_platform(settings, "!", store, clock, Access(clock)) as (_, listen, _),
    ):
        with pytest.raises(ConfigError, match="log in anew with"):
            async with asyncio.timeout(10):
                await listen(CORE)  # type: ignore[arg-type]


async def logged_in_beside_another(synapse: Synapse, account: Account, folder: Path) -> Path:
    """A folder with a device of ours, whose account has an identity that another device has made."""
    another, ours = folder / "another's", folder / "ours"
    for each in (another, ours):
        await log_in(synapse.url, account.user_id, account.password, each)
    async with open_account(synapse.url, account.user_id, another, SECRET) as client:
        await introduce(client, another, SECRET, RealClock())
    return ours


async def test_whose_account_has_an_identity_of_somebody_else_is_told_what_to_do(
    synapse: Synapse, account: Account, tmp_path: Path
) -> None:
    ours, clock = await logged_in_beside_another(synapse, account, tmp_path), RealClock()
    settings = MatrixSettings(
        homeserver=synapse.url, user=account.user_id, store=ours, store_secret=SecretStr(SECRET)
    )
    async with (
        open_database(tmp_path / "store.sqlite") as store,
        open_platform(settings, "!", store, clock, Access(clock)) as (_, listen, _),
    ):
        with pytest.raises(ConfigError, match="reset-identity"):
            await listen(CORE)  # type: ignore[arg-type]


async def test_an_identity_of_somebody_else_can_be_replaced_before_the_first_start(
    synapse: Synapse, account: Account, tmp_path: Path
) -> None:
    ours, clock = await logged_in_beside_another(synapse, account, tmp_path), RealClock()
    async with open_account(synapse.url, account.user_id, ours, SECRET) as client:
        await replace_identity(client, ours, SECRET, account.password)
        await introduce(client, ours, SECRET, clock)


async def ask_and_log_out(place: Place, *, is_shown: bool) -> None:
    """Somebody asks, and the token is revoked while the bot writes; it reads that late, after its answer."""
    bot, is_over = place.bot, asyncio.Event()
    send = bot.client.send

    async def reading_late(method: str, path: str, *rest: Any) -> Any:
        answer = await send(method, path, *rest)
        if "/sync" in path and answer.status != 200:
            await is_over.wait()
        return answer

    bot.client.send = reading_late
    bot.brain.answer, bot.brain.token_s = lambda prompt: ANSWER, 0.01
    await place.say("tell me")
    await bot.until(lambda: bot.brain.requests)
    if is_shown:
        await place.until(lambda them: [it for it in them if "word" in it.text])
    await Wire(bot.client).ask("POST", "/logout")
    await asyncio.sleep(2.5)
    is_over.set()
    await asyncio.sleep(20)


@pytest.mark.parametrize("is_shown", [False, True])
async def test_an_answer_that_is_being_written_is_shown_after_the_next_login(
    synapse: Synapse, account: Account, anna: Human, store_path: Path, is_shown: bool
) -> None:
    places: list[Place] = []

    async def run() -> None:
        async with (
            open_client(synapse.url, account) as client,
            open_bot(client, store_path, boot="one") as bot,
        ):
            places.append(await meet(anna, bot, direct=True))
            await ask_and_log_out(places[0], is_shown=is_shown)

    with pytest.raises(LoggedOut):
        await run()
    async with (
        open_client(synapse.url, account, "ANEW") as client,
        open_bot(client, store_path, boot="two", answer="written anew") as bot,
    ):
        place = Place(anna, bot, places[0].room_id)
        await place.reads(ANSWER, within_s=20)
        await bot.quiet()
        assert await bot.undelivered() == 0
        assert [said.state for said in await bot.turns()] == ["done"]
        texts = await place.texts()
        assert texts[-1] == ANSWER


@pytest.mark.parametrize(
    ("errcode", "kind"),
    [("M_UNKNOWN_TOKEN", LoggedOut), ("M_MISSING_TOKEN", LoggedOut), ("M_USER_LOCKED", Unreachable)],
)
def test_what_cannot_be_sent_without_a_session_is_not_refused_for_ever(
    errcode: str, kind: type[SendError]
) -> None:
    error = error_of(401, f'{{"errcode": "{errcode}"}}'.encode())
    assert isinstance(error, kind)
    assert isinstance(error, Unreachable)
