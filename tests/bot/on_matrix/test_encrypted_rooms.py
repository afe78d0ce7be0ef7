"""Encrypted rooms: people and bot read each other, and nothing is ever said there in plain text."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nio.crypto.attachments import decrypt_attachment

from bot.on_matrix.account import NotLoggedIn, log_in, open_account
from bot.on_matrix.memory import remember_encrypted
from bot.on_matrix.messages import OURS
from bot.words import Limits
from tests.bot.on_matrix.test_commands import ends_with
from tests.bot.on_matrix.test_deliveries import Trouble
from tests.bot.on_matrix.world import Bot, Place, meet, open_bot
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.signed_only import NewSignedOnly
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

SECRET = "an operator's secret"


@pytest.fixture
def account(synapse: Synapse) -> Account:
    return synapse.register("murmur")


@contextlib.asynccontextmanager
async def open_sealed_bot(
    synapse: Synapse, account: Account, store_path: Path, *, boot: str = "boot"
) -> AsyncIterator[Bot]:
    """A bot that encrypts, with its keys beside the store."""
    folder = store_path.parent / "matrix"
    async with (
        open_account(synapse.url, account.user_id, folder, SECRET) as client,
        open_bot(client, store_path, boot=boot, store=folder, store_secret=SECRET) as bot,
    ):
        yield bot


@pytest_asyncio.fixture
async def sealed_bot(synapse: Synapse, account: Account, store_path: Path) -> AsyncIterator[Bot]:
    await log_in(synapse.url, account.user_id, account.password, store_path.parent / "matrix")
    async with open_sealed_bot(synapse, account, store_path) as bot:
        yield bot


@pytest_asyncio.fixture
async def sealed_chat(sealed_bot: Bot, new_human: NewHuman) -> Place:
    """Anna and the bot in an encrypted chat of two."""
    return await meet(await new_human("anna", encrypted=True), sealed_bot, direct=True, encrypted=True)


async def test_behaviour_16_people_and_bot_read_each_other_in_an_encrypted_room(sealed_chat: Place) -> None:
    sealed_chat.bot.brain.answer = lambda prompt: f"{prompt}: " + "word " * 30
    sealed_chat.bot.brain.token_s = 0.01
    await sealed_chat.say("tell me")
    answer = await sealed_chat.reads("tell me: " + "word " * 30)
    assert answer.is_encrypted
    assert answer.edits
    assert OURS in answer.content


async def test_behaviour_16_strict_clients_read_the_bot_and_are_read_also_after_a_restart_and_a_new_login(
    synapse: Synapse, account: Account, store_path: Path, new_signed_only: NewSignedOnly
) -> None:
    folder = store_path.parent / "matrix"
    human = await new_signed_only("strict")
    await log_in(synapse.url, account.user_id, account.password, folder)
    async with open_sealed_bot(synapse, account, store_path, boot="one"):
        room_id = await human.create_room(account.user_id)
        await human.wait_for_member(room_id, account.user_id)
        await human.say(room_id, "one")
        assert (await human.wait_for_text(room_id, "You said: one"))["encrypted"]
    async with open_sealed_bot(synapse, account, store_path, boot="two"):
        await human.say(room_id, "two")
        assert (await human.wait_for_text(room_id, "You said: two"))["encrypted"]
    await log_in(synapse.url, account.user_id, account.password, folder)
    async with open_sealed_bot(synapse, account, store_path, boot="three"):
        await human.say(room_id, "three")
        assert (await human.wait_for_text(room_id, "You said: three"))["encrypted"]


def plain_texts(trouble: Trouble) -> list[str]:
    return [path for path, _ in trouble.asked if "/send/m.room.message/" in path]


async def test_behaviour_17_answers_notices_errors_and_edits_are_never_plain(sealed_chat: Place) -> None:
    trouble = Trouble(sealed_chat.bot)
    await sealed_chat.say("one")
    await sealed_chat.reads("You said: one")
    sealed_chat.bot.brain.errors.append(RuntimeError("broken"))
    await sealed_chat.say("two")
    await sealed_chat.until(lambda them: [it for it in them if "Something went wrong here" in it.text])
    await sealed_chat.say("!hlep")
    await sealed_chat.reads("There is no command `hlep`; did you mean `!help`?")
    await sealed_chat.bot.quiet()
    assert plain_texts(trouble) == []
    bodies = b"".join(body for path, body in trouble.asked if "/sendToDevice/" not in path)
    assert b"You said" not in bodies
    assert b"went wrong" not in bodies
    assert sum("/send/m.room.encrypted/" in path for path, _ in trouble.asked) >= 3


async def test_behaviour_17_a_room_that_was_once_encrypted_is_so_whatever_the_library_believes(
    sealed_bot: Bot, new_human: NewHuman
) -> None:
    place = await meet(await new_human("anna", encrypted=True), sealed_bot, direct=True)
    await sealed_bot.store.write(remember_encrypted, place.room_id, 0)
    trouble = Trouble(sealed_bot)
    await place.say("one")
    answer = await place.reads("You said: one")
    assert answer.is_encrypted
    assert plain_texts(trouble) == []


async def test_behaviour_17_without_keys_nothing_is_said_there(chat: Place) -> None:
    other = await meet(chat.human, chat.bot, direct=True)
    await chat.bot.store.write(remember_encrypted, chat.room_id, 0)
    trouble = Trouble(chat.bot)
    await chat.say("one")
    await chat.bot.until(lambda: chat.bot.brain.requests)
    await chat.bot.quiet()
    assert [path for path, _ in trouble.asked if "/send/" in path] == []
    await other.say("two")
    await other.reads("You said: two")


async def test_behaviour_17_encryption_that_is_turned_on_later_holds_from_then_on(
    sealed_bot: Bot, new_human: NewHuman
) -> None:
    place = await meet(await new_human("anna", encrypted=True), sealed_bot, direct=True)
    await place.say("one")
    assert not (await place.reads("You said: one")).is_encrypted
    await place.human._ask(
        place.human.client.room_put_state(
            place.room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}
        )
    )
    await place.human._until(lambda: place.human.client.rooms[place.room_id].encrypted, "encryption")
    await place.say("two")
    assert (await place.reads("You said: two")).is_encrypted


async def test_behaviour_07_long_answers_of_wide_letters_fit_into_encrypted_events(
    sealed_chat: Place,
) -> None:
    text = "Съешь же ещё этих мягких булок. " * 94 + "🙂🙃" * 750
    sealed_chat.bot.brain.answer = lambda prompt: text
    trouble = Trouble(sealed_chat.bot)
    await sealed_chat.say("tell me")
    await sealed_chat.until(lambda them: "".join(it.text for it in them) == text, within_s=30)
    await sealed_chat.bot.quiet()
    assert len(await sealed_chat.texts()) > 1
    posts = [path for path, _ in trouble.asked if "/send/" in path]
    assert len(posts) == len(set(posts)), "nothing had to be sent twice"


class LostKeys:
    """Somebody's client whose keys do not arrive, until they are sent again."""

    def __init__(self, human: Human) -> None:
        self._lost: list[tuple[Any, ...]] = []
        self._is_losing = True
        self._send = human.client.send
        human.client.send = self._without_keys

    async def _without_keys(self, method: str, path: str, *rest: Any) -> Any:
        if "/sendToDevice/m.room.encrypted" in path and self._is_losing:
            self._lost.append((method, path, *rest))
            path = path.replace("m.room.encrypted", "org.example.lost")
        return await self._send(method, path, *rest)

    async def send_again(self) -> None:
        self._is_losing = False
        for method, path, *rest in self._lost:
            await self._send(method, f"{path}-again", *rest)


async def test_what_cannot_be_read_yet_is_answered_when_its_key_comes(sealed_chat: Place) -> None:
    keys, unread = LostKeys(sealed_chat.human), sealed_chat.bot.adapter.unread
    await sealed_chat.say("you cannot read this yet")
    await sealed_chat.bot.until(lambda: unread.num_waiting == 1)
    await keys.send_again()
    await sealed_chat.reads("You said: you cannot read this yet")
    assert unread.num_waiting == 0
    assert len(await sealed_chat.texts()) == 1


async def test_what_cannot_be_read_yet_is_remembered_over_a_restart(
    synapse: Synapse, account: Account, store_path: Path, new_human: NewHuman
) -> None:
    anna = await new_human("anna", encrypted=True)
    await log_in(synapse.url, account.user_id, account.password, store_path.parent / "matrix")
    async with open_sealed_bot(synapse, account, store_path, boot="one") as bot:
        place, keys = await meet(anna, bot, direct=True, encrypted=True), LostKeys(anna)
        await place.say("you cannot read this yet")
        await bot.until(lambda: bot.adapter.unread.num_waiting == 1)
        await asyncio.sleep(0.1)  # it is committed with the sync
    async with open_sealed_bot(synapse, account, store_path, boot="two") as place.bot:
        await keys.send_again()
        await place.reads("You said: you cannot read this yet")


async def test_what_cannot_be_read_in_time_is_said_so_once_in_a_thread(sealed_chat: Place) -> None:
    LostKeys(sealed_chat.human)
    unread = sealed_chat.bot.adapter.unread
    unread.patience_s = 0.3
    for text in ("you cannot read this", "nor this"):
        await sealed_chat.say(text)
        await sealed_chat.bot.until(lambda: unread.num_waiting)
        await asyncio.sleep(0.4)
        await sealed_chat.human.redact(sealed_chat.room_id, await sealed_chat.say("more", kind="m.notice"))
        await sealed_chat.until(ends_with("begin a new room."))
    assert len(await sealed_chat.texts()) == 1


async def test_behaviour_17_a_file_is_encrypted_too(sealed_chat: Place) -> None:
    text = "secret words " * 300
    sealed_chat.bot.brain.answer = lambda prompt: text
    port = sealed_chat.bot.adapter.port
    port.limits = Limits(2000, most_parts=1)
    uploads: list[bytes] = []
    send = sealed_chat.bot.client.send

    async def watched(method: str, path: str, body: Any = None, *rest: Any) -> Any:
        uploads.extend([body] if "/media/" in path else [])
        return await send(method, path, body, *rest)

    sealed_chat.bot.client.send = watched
    await sealed_chat.say("tell me")
    file = await sealed_chat.until(lambda them: next((it for it in them if it.kind == "m.file"), None))
    assert file.is_encrypted
    assert "url" not in file.content
    (sealed,) = uploads
    keys = file.content["file"]
    assert decrypt_attachment(sealed, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"]) == text.encode()


async def test_what_people_say_is_never_logged(sealed_chat: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for content in ({"formatted_body": ["xyzzy"]}, {"url": ["xyzzy"]}):
        for kind in ("m.text", "m.image", "m.xyzzy"):
            odd: dict[str, Any] = {"msgtype": kind, "body": "xyzzy"} | content
            await sealed_chat.human.send(sealed_chat.room_id, odd)
    await sealed_chat.say("now xyzzy")
    await sealed_chat.until(lambda them: [it for it in them if "now xyzzy" in it.text])
    await sealed_chat.bot.quiet()
    assert "xyzzy" not in "".join(it.getMessage() for it in caplog.records if it.name != "asyncio")


async def test_who_is_not_logged_in_is_told_what_to_do(tmp_path: Path) -> None:
    for content in (None, b"", b"{}", b"[" * 9000):
        if content is not None:
            (tmp_path / "session.json").write_bytes(content)
        with pytest.raises(NotLoggedIn, match="murmur matrix login"):
            async with open_account("http://127.0.0.1:9", "@a:b", tmp_path, SECRET):
                pass


async def test_keys_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    url, user = "http://127.0.0.1:9", "@a:b"
    session = f'{{"homeserver":"{url}","user_id":"{user}","device_id":"D","access_token":"t"}}'
    (tmp_path / "session.json").write_text(session)
    async with open_account(url, user, tmp_path, SECRET):
        pass
    with pytest.raises(NotLoggedIn, match="set the store_secret they were made with"):
        async with open_account(url, user, tmp_path, f"{SECRET} that is another"):
            pass
    (tmp_path / "@a:b_D.db").write_bytes(b"no database" * 1000)
    with pytest.raises(NotLoggedIn, match="cannot be read"):
        async with open_account(url, user, tmp_path, SECRET):
            pass


async def test_the_token_is_for_its_owner_alone_and_belongs_to_one_account(
    synapse: Synapse, account: Account, tmp_path: Path
) -> None:
    folder = tmp_path / "matrix"
    with pytest.raises(NotLoggedIn, match="M_FORBIDDEN"):
        await log_in(synapse.url, account.user_id, "not the password", folder)
    await log_in(synapse.url, account.user_id, account.password, folder)
    assert (folder / "session.json").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(NotLoggedIn, match="belongs to"):
        async with open_account(synapse.url, "@another:localhost", folder, SECRET):
            pass
