"""What people get as files: their conversation, and all that is kept of them."""

import io
import json
import random
import zipfile

import pytest

from bot.commands.files import ASK_ENCRYPTED, TOO_LARGE, fitted
from bot.commands.handlers import NO_FILE
from bot.words import Author, Limits, Refused
from storage.conversations import note_encrypted, open_place
from storage.database import Transaction
from tests.bot.platform import ADA, BOB, CHANNEL
from tests.bot.test_commands import told
from tests.bot.world import World


def file_for(world: World, who: str = "ada") -> tuple[str, str]:
    """The last file that somebody got: its name, and its text."""
    (name, content) = [file for author, file in world.port.told_files if author == who][-1]
    return name, content.decode()


async def test_history_tells_who_said_what_and_when_with_all_its_versions(world: World) -> None:
    await world.ask("# one\nand more")
    world.brain.answer = lambda prompt: "A second try\n## 9. Mallory"
    await world.call("retry")
    await world.quiet()
    world.brain.answer = lambda prompt: "A long story. " * 14
    await world.say("two")
    await world.until(lambda: world.port.texts[-1].startswith("A long"))
    await world.call("stop")
    await world.quiet()
    assert await told(world, "history") == "This conversation is in the file."
    name, text = file_for(world)
    assert name == "history.md"
    headings = [line for line in text.splitlines() if line.startswith("#")]
    moments = [heading.partition(", ")[2][:14] for heading in headings[1:]]
    assert [heading.partition(",")[0] for heading in headings] == [
        "# Conversation",
        "## 1. Ada",
        "## 2. Ada",
        "## 3. Ada",
    ]
    assert all(len(moment) == 14 and moment[4] == "-" for moment in moments)
    assert headings[2].endswith("UTC: asked again")
    assert "> # one\n> and more" in text
    assert "Answer (no longer part of the conversation):\n\n> You said: # one" in text
    assert "> A second try\n> ## 9. Mallory" in text
    assert "Answer (stopped):" in text


async def test_history_names_what_was_cut_off_and_gone_on_with(world: World) -> None:
    world.brain.answer = lambda prompt: "x" * 300
    await world.ask("letters")
    await world.call("continue")
    await world.quiet()
    await told(world, "history")
    _, text = file_for(world)
    assert "Answer (cut off by the length limit):" in text
    assert "UTC: continue\n\nAnswer" in text


async def test_history_is_for_those_who_took_part(world: World) -> None:
    assert await told(world, "history") == "There is no conversation of yours here yet."
    await world.ask("ours", where=CHANNEL)
    assert (await told(world, "history", where=CHANNEL, author=BOB)).startswith("There is no conversation")
    await world.ask("ours too", where=CHANNEL, author=BOB, reply_to=world.port.messages[-1].message_id)
    await told(world, "history", where=CHANNEL, author=BOB)
    _, text = file_for(world, "bob")
    assert ("1. Ada" in text, "2. Bob" in text) == (True, True)
    assert len(world.port.told_files) == 1


async def test_a_name_is_one_line_and_no_markdown(world: World) -> None:
    await world.ask("hm", author=Author(ADA.external_id, "Ada\n## 2. **Bob**"))
    await told(world, "history")
    assert "## 1. Ada 2. Bob," in file_for(world)[1]


async def test_export_is_json_with_all_that_was_said(world: World) -> None:
    await world.say("one")
    await world.say("joined")
    await world.quiet()
    await world.ask("somebody else's", author=BOB, where=CHANNEL)
    assert await told(world, "export") == "All that I keep of you is in the file."
    name, text = file_for(world)
    kept = json.loads(text)
    assert name == "export.json"
    assert [turn["prompt"] for turn in kept["turns"]] == ["one\njoined"]
    assert [each["event_id"] for each in kept["joined_messages"]] == ["e2"]
    assert "somebody else" not in text
    assert kept["account"]["external_id"] == "ada"


async def test_a_file_that_is_too_large_is_zipped_and_then_cut(world: World) -> None:
    for number in range(6):
        await world.ask(f"question {number} " + "a word and another. " * 20)
    await told(world, "history")
    whole = len(world.port.told_files[-1][1][1])
    world.port.limits = Limits(400, file_bytes=whole - 1)
    await told(world, "history")
    name, content = world.port.told_files[-1][1]
    assert name == "history.md.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert "question 0" in archive.read("history.md").decode()
    world.port.limits = Limits(400, file_bytes=len(content) - 1)
    assert "the oldest 3 of its 6 questions did not fit" in await told(world, "history")
    with zipfile.ZipFile(io.BytesIO(world.port.told_files[-1][1][1])) as archive:
        text = archive.read("history.md").decode()
    assert ("question 2" in text, "question 3" in text) == (False, True)
    assert "The oldest 3 questions are left out." in text
    world.port.limits = Limits(400, file_bytes=10)
    assert await told(world, "history") == TOO_LARGE
    assert await told(world, "export") == TOO_LARGE


async def test_an_export_that_is_cut_is_json_still(world: World) -> None:
    chance = random.Random(1)
    for _ in range(4):
        await world.ask(chance.randbytes(2000).hex())
    await told(world, "export")
    whole = len(world.port.told_files[-1][1][1])
    world.port.limits = Limits(400, file_bytes=whole // 3)
    assert "the oldest 2 of its 4 questions did not fit" in await told(world, "export")
    name, content = world.port.told_files[-1][1]
    assert name == "export.json.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kept = json.loads(archive.read("export.json"))
    assert (len(kept["turns"]), kept["left_out"]) == (2, "the oldest 2 turns did not fit")
    assert {each["turn_id"] for each in kept["messages"]} == {turn["id"] for turn in kept["turns"]}


async def test_what_was_said_in_encrypted_rooms_is_exported_only_into_one(world: World) -> None:
    def seal(connection: Transaction) -> None:
        note_encrypted(connection, open_place(connection, "fake", CHANNEL.place, 0).place_id)

    await world.ask("a secret", where=CHANNEL)
    await world.store.write(seal)
    assert await told(world, "export") == ASK_ENCRYPTED
    assert world.port.told_files == []
    await told(world, "export", where=CHANNEL)
    assert "a secret" in file_for(world)[1]


@pytest.mark.parametrize("num_turns", [0, 1, 2, 3, 1000])
def test_what_never_fits_is_no_file(num_turns: int) -> None:
    assert fitted("x", lambda number: b"x" * 10, num_turns, 5) == (None, 0)


async def test_a_file_that_the_platform_refuses_is_excused(world: World) -> None:
    await world.ask("one")
    world.port.failures["tell"] = [Refused("no files")]
    assert await told(world, "history") == NO_FILE
    assert world.port.told_files == []
