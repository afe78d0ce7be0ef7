"""What the core hears of a room's events, whatever the store knows or whatever goes wrong there."""

from typing import Any

import msgspec
import pytest

from bot.config.platforms import MatrixSettings
from bot.on_matrix.rooms import Room
from bot.on_matrix.translating import Heard, Translator
from bot.words import Inbound, Where
from storage.errors import StoreBusy
from tests.bot.clock import FakeClock

BOT, ANNA, BEN = "@murmur:localhost", "@anna:localhost", "@ben:localhost"


class FakeStore:
    """Gives its answers in their order; errors are raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    async def write(self, work: object, *arguments: object) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def room(*people: str) -> Room:
    room = Room("!room:localhost")
    for user_id in (BOT, *people):
        content = {"membership": "join"}
        room.fold({"type": "m.room.member", "state_key": user_id, "sender": user_id, "content": content})
    return room


def message(name: str, body: str, **relation: object) -> dict[str, Any]:
    content: dict[str, Any] = {"msgtype": "m.text", "body": body, "m.mentions": {}}
    if relation:
        content["m.relates_to"] = relation
    return {"type": "m.room.message", "event_id": name, "sender": ANNA, "content": content}


def thread(root: str) -> dict[str, object]:
    return {"rel_type": "m.thread", "event_id": root, "is_falling_back": True}


async def hear(
    where: Room, *events: dict[str, Any], store: FakeStore | None = None, **settings: Any
) -> list[Inbound]:
    heard = Heard()
    own = MatrixSettings(**settings)
    translator = Translator(BOT, own, "!", store or FakeStore(), FakeClock())  # type: ignore[arg-type]
    await translator.hear(where, events, heard)
    return [msgspec.json.decode(event.payload, type=Inbound) for event in heard.events]


async def test_a_thread_in_a_chat_of_two_is_a_conversation_of_its_own() -> None:
    plain, threaded = await hear(room(ANNA), message("$1", "one"), message("$2", "two", **thread("$1")))
    assert plain.where == Where("matrix", "!room:localhost", "direct")
    assert threaded.where == Where("matrix", "!room:localhost", "group", "$1")


async def test_a_thread_whose_question_the_store_does_not_have_yet_is_ours() -> None:
    events = (message("$1", f"{BOT}: one"), message("$2", "two", **thread("$1")))
    assert [it.text for it in await hear(room(ANNA, BEN), *events)] == ["one", "two"]


async def test_an_event_that_we_fail_on_is_left_out_and_the_next_is_heard() -> None:
    store = FakeStore(RuntimeError("a mistake of ours"))
    events = (message("$1", "one", **thread("$0")), message("$2", f"{BOT}: two"))
    assert [it.text for it in await hear(room(ANNA, BEN), *events, store=store)] == ["two"]


async def test_a_store_that_is_busy_is_no_reason_to_leave_an_event_out() -> None:
    store = FakeStore(StoreBusy("later"))
    with pytest.raises(StoreBusy):
        await hear(room(ANNA, BEN), message("$1", "one", **thread("$0")), store=store)


@pytest.mark.parametrize(
    "settings",
    [
        {"direct_messages": False},
        {"denied_users": (ANNA,)},
        {"allowed_users": (BEN,)},
        {"denied_rooms": ("!room:localhost",)},
        {"allowed_rooms": ("!other:localhost",)},
    ],
)
async def test_who_may_not_use_us_is_not_heard(settings: dict[str, Any]) -> None:
    assert await hear(room(ANNA), message("$1", "one"), **settings) == []
    assert len(await hear(room(ANNA), message("$1", "one"))) == 1


async def test_a_room_that_replaces_a_denied_one_is_denied_as_well() -> None:
    new = room(ANNA)
    created = {"room_version": "12", "predecessor": {"room_id": "!old:localhost"}}
    new.fold({"type": "m.room.create", "state_key": "", "sender": ANNA, "content": created})
    assert await hear(new, message("$1", "one"), denied_rooms=("!old:localhost",)) == []
    assert len(await hear(new, message("$1", "one"), denied_rooms=("!other:localhost",))) == 1


async def test_a_name_without_a_question_is_told_what_to_do() -> None:
    (inbound,) = await hear(room(ANNA, BEN), message("$1", BOT))
    assert (inbound.event_id, inbound.text) == ("$1", "")
    assert inbound.mistake == "Yes? Ask me something, or see `!help`."


async def test_every_mistyped_command_goes_to_the_core_whose_rule_of_haste_counts_it() -> None:
    mistyped = [message(f"${number}", "!helo" if number % 2 else "!new now") for number in range(50)]
    heard = await hear(room(ANNA), *mistyped)
    assert len(heard) == len(mistyped)
    assert {it.mistake for it in heard} == {
        "There is no command `helo`; did you mean `!help`?",
        "`!new` takes no `now`.",
    }
