"""Commands: read from lines, carried out for those who may, and answered in sentences."""

import pytest

from bot.commands.catalogue import COMMANDS
from bot.commands.handlers import HANDLERS
from bot.commands.named import NOT_THEIRS
from bot.commands.registry import Argument, Command, Mistake, Registry
from bot.words import Call, Where
from tests.bot.platform import BOB, CHANNEL, MODERATOR
from tests.bot.world import World

THREAD = Where("fake", "thread", "thread")


async def told(world: World, command: str, /, **options: object) -> str:
    """What somebody is told about a command."""
    before = len(world.port.told)
    await world.call(command, **options)  # type: ignore[arg-type]
    await world.quiet()
    return "\n".join(text for _, text in world.port.told[before:])


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("new", Call("new")),
        ("RETRY 0.9", Call("retry", {"temperature": "0.9"})),
        ("persona set  You are kind.\nAlways.", Call("persona set", {"text": "You are kind.\nAlways."})),
        ("ask What is it?", Call("ask", {"text": "What is it?"})),
        ("settings set top_p 0.5 Me", Call("settings set", {"name": "top_p", "value": "0.5", "scope": "me"})),
        ("help persona set", Call("help", {"command": "persona set"})),
    ],
)
def test_a_line_becomes_a_command_with_its_arguments(line: str, call: Call) -> None:
    assert COMMANDS.read(line, "!") == call


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "Which command? `!help` names all."),
        ("model", "Write `!model list`."),
        ("model lst", "Write `!model list`."),
        ("retri", "There is no command `retri`; did you mean `!retry`?"),
        ("zzz", "There is no command `zzz`; `!help` names all commands."),
        ("ask", "`!ask text` needs text: what to say."),
        ("new now", "`!new` takes no `now`."),
        (
            "persona",
            "`!persona` is one of `!persona show`, `!persona set`, `!persona clear`, `!persona channel`.",
        ),
        ("forget it", "what is one of here, everything, not `it`."),
        ("`rm`" + "x" * 90, f"There is no command `'rm'{'x' * 36}`; `!help` names all commands."),
    ],
)
def test_a_line_that_is_no_command_gets_one_sentence(line: str, sentence: str) -> None:
    read = COMMANDS.read(line, "!")
    assert isinstance(read, Mistake)
    assert read.sentence == sentence


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("admin deny", "admin deny"),
        ("admin dney !room:example.org", "admin"),
        ("admin kill 1 2", "admin kill"),
        ("forget it", "forget"),
        ("model", "model"),
        ("amdin deny !room:example.org", ""),
        ("", ""),
    ],
)
def test_a_mistake_names_the_command_that_was_meant(line: str, command: str) -> None:
    read = COMMANDS.read(line, "!", is_admin=True)
    assert isinstance(read, Mistake)
    assert read.command == command


def test_for_others_an_admins_command_that_is_mistyped_is_none() -> None:
    assert COMMANDS.read("admin dney", "!") == Mistake(
        "There is no command `admin dney`; `!help` names all commands."
    )


@pytest.mark.parametrize(
    "commands",
    [
        (Command("a", "b"), Command("a", "c")),
        (Command("Upper", "b"),),
        (Command("a", ""),),
        (Command("a", "b" * 101),),
        (Command("a b c", "d"),),
        (Command("a", "b", arguments=(Argument("x", "y", takes_rest=True), Argument("z", "w"))),),
    ],
)
def test_commands_that_platforms_would_not_take_are_refused(commands: tuple[Command, ...]) -> None:
    with pytest.raises(ValueError, match=r"a|Upper"):
        Registry(commands)


def test_whoever_carries_out_a_command_has_it_declared() -> None:
    assert {name for name in HANDLERS if COMMANDS.get(name) is None} == set()


async def test_help_names_what_people_may_do_and_explains_one_command(world: World) -> None:
    everything = await told(world, "help")
    assert "retry [temperature]: Write the last answer again" in everything
    assert "admin" not in everything
    assert (await told(world, "help", command="!contribute")).endswith("Example: contribute 16GB")
    assert (await told(world, "help", command="persona")).count("persona ") >= 3
    assert "no command of that name" in await told(world, "help", command="admin ban")


async def test_a_persona_is_what_the_model_is_told_first_from_then_on(world: World) -> None:
    await world.ask("one")
    assert await told(world, "persona show") == "I behave as usual here."
    assert "new conversation" in await told(world, "persona set", text="You are a pirate.")
    await world.ask("two")
    words = "".join(map(chr, world.brain.requests[-1].ids))
    assert words.startswith("s:You are a pirate.")
    assert "one" not in words
    assert await told(world, "persona show") == "Here I was told: You are a pirate."
    await told(world, "persona clear")
    await world.ask("three")
    assert "pirate" not in "".join(map(chr, world.brain.requests[-1].ids))
    assert "2000 are the most" in await told(world, "persona set", text="x" * 2001)


async def test_settings_hold_where_they_were_set_the_nearest_first(world: World) -> None:
    assert "There is no conversation" in await told(world, "settings set", name="temperature", value="0.5")
    await world.ask("one")
    assert "everywhere" in await told(world, "settings set", name="temperature", value="1.5", scope="me")
    await told(world, "settings set", name="temperature", value="0,25")
    await world.ask("two")
    assert world.brain.requests[-1].params.temperature == 0.25
    assert "temperature: 0.25 (here)" in await told(world, "settings show")
    await told(world, "settings reset", name="temperature")
    await world.ask("three")
    assert world.brain.requests[-1].params.temperature == 1.5
    await world.ask("four", author=BOB, where=CHANNEL)
    assert world.brain.requests[-1].params.temperature == 0.0
    await told(world, "settings set", name="streaming", value="off")
    world.brain.answer = lambda prompt: "A sentence. " * 10
    await world.ask("five")
    assert len(world.port.messages[-1].history) == 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", "3", "temperature is a number from 0 to 2."),
        ("temperature", "nan", "temperature is a number from 0 to 2."),
        ("top_k", "1.5", "top_k is a whole number from 0 to 1000."),
        ("streaming", "yes", "streaming is on or off."),
        ("max_new_tokens", "1", "max_new_tokens is a whole number from 16 to 200."),
        ("speed", "1", "There is no setting of that name; there are temperature, top_p"),
    ],
)
async def test_a_setting_that_makes_no_sense_gets_one_sentence(
    world: World, name: str, value: str, sentence: str
) -> None:
    await world.ask("one")
    assert (await told(world, "settings set", name=name, value=value)).startswith(sentence)


async def test_a_setting_is_told_as_it_is_kept(world: World) -> None:
    await world.ask("one")
    assert await told(world, "settings set", name="temperature", value="-0") == "temperature is 0 now, here."
    assert await told(world, "settings set", name="top_k", value="1e2") == "top_k is 100 now, here."
    assert await told(world, "settings set", name="thinking", value="hide") == "thinking is hide now, here."
    assert "temperature: 0 (here)" in await told(world, "settings show")


async def test_a_moderator_tells_the_bot_how_to_behave_in_a_whole_channel(world: World) -> None:
    wanted = {"where": CHANNEL, "text": "You are a gardener."}
    assert (
        await told(world, "persona channel", author=BOB, **wanted) == "Only moderators may set that for all."
    )
    assert "here say `persona set You" in await told(world, "persona channel", text="You are a pirate.")
    assert "in this channel" in await told(world, "persona channel", author=MODERATOR, **wanted)
    assert "2000 are the most" in await told(
        world, "persona channel", author=MODERATOR, where=CHANNEL, text="x" * 2001
    )
    await world.ask("one", where=CHANNEL)
    assert "You are a gardener." in prompt_of(world)
    assert await told(world, "persona show", where=CHANNEL) != ""
    await world.ask("elsewhere")
    assert "You are a gardener." not in prompt_of(world)
    await told(world, "persona channel", author=MODERATOR, where=CHANNEL)
    await world.ask("two", where=CHANNEL)
    assert "You are a gardener." not in prompt_of(world)


def prompt_of(world: World) -> str:
    """What the model was told last; its tokens are letters."""
    return "".join(map(chr, world.brain.requests[-1].ids))


async def test_in_a_channel_people_are_told_which_of_their_conversations_it_is_about(world: World) -> None:
    await world.ask("the first question")
    await world.ask("something about the weather of the whole week", where=CHANNEL)
    which = "\nThat is the conversation with “something about the weather of the whole”."
    for command, arguments in (
        ("settings set", {"name": "top_k", "value": "5"}),
        ("settings reset", {"name": "top_k"}),
        ("settings show", {}),
        ("persona show", {}),
        ("persona set", {"text": "You are a pirate."}),
    ):
        assert (await told(world, command, where=CHANNEL, **arguments)).endswith(which)
        assert which not in await told(world, command, **arguments), "in a chat of two there is no other"


async def test_taking_back_a_setting_reads_its_name_as_setting_it_does(world: World) -> None:
    await world.ask("one")
    assert "no setting of that name" in await told(world, "settings reset", name="speed")
    await told(world, "settings set", name="top_k", value="5")
    assert await told(world, "settings reset", name="TOP_K") == "That is as the operator has set it again."


async def test_only_who_began_a_conversation_says_how_it_is_answered(world: World) -> None:
    await world.ask("one", where=THREAD)
    warmer = {"name": "temperature", "value": "2", "where": THREAD}
    for stranger_may in ("persona clear", "settings reset"):
        assert await told(world, stranger_may, where=THREAD, author=BOB) == NOT_THEIRS
    assert await told(world, "persona set", text="Be rude.", where=THREAD, author=BOB) == NOT_THEIRS
    assert await told(world, "settings set", author=BOB, **warmer) == NOT_THEIRS
    assert "(here)" not in await told(world, "settings show", where=THREAD)
    assert "2 now" in await told(world, "settings set", **warmer)
    assert "follow that" in await told(world, "persona set", text="Be kind.", where=THREAD, author=MODERATOR)


async def test_only_moderators_set_what_holds_for_a_channel(world: World) -> None:
    await world.ask("one", where=CHANNEL)
    wanted = {"name": "temperature", "value": "1", "scope": "channel", "where": CHANNEL}
    assert await told(world, "settings set", **wanted) == "Only moderators may set that for all."
    assert "for this channel" in await told(world, "settings set", author=MODERATOR, **wanted)
    await world.ask("two", where=CHANNEL, author=BOB)
    assert world.brain.requests[-1].params.temperature == 1.0


async def test_privacy_says_who_can_read_and_how_to_leave(world: World) -> None:
    answer = await told(world, "privacy")
    assert all(word in answer for word in ("volunteers", "display name", "`export`", "`forget`"))


async def test_behaviour_28_forget_everything_said_twice_leaves_nothing(world: World) -> None:
    await world.ask("a very private question")
    assert "To confirm" in await told(world, "forget", what="everything")
    assert len(await world.turns()) == 1
    assert (await told(world, "forget", what="everything")).startswith("All that I kept of you is deleted")
    assert await world.turns() == []
    assert world.brain.forgotten == [1]
    for file in world.store.path.parent.glob("murmur.db*"):
        assert b"very private" not in file.read_bytes(), file.name
    assert (await world.standing()).balance < 10_000, "and nothing is granted a second time today"


async def test_forget_here_takes_what_was_asked_here_and_nothing_else(world: World) -> None:
    await world.ask("here")
    await world.ask("elsewhere", where=CHANNEL)
    await told(world, "forget")
    assert (await told(world, "forget", what="here")).startswith("What you have asked here is deleted")
    assert [turn.question.prompt for turn in await world.turns()] == ["elsewhere"]


async def test_what_was_said_once_long_ago_must_be_said_again(world: World) -> None:
    await world.ask("one")
    await told(world, "forget")
    await world.pass_(61)
    assert "To confirm" in await told(world, "forget")
    assert len(await world.turns()) == 1


async def test_in_a_chat_of_two_nothing_is_set_for_a_channel(world: World) -> None:
    await world.ask("hello")
    await world.call("settings set", name="temperature", value="0.5", scope="channel")
    await world.quiet()
    assert world.port.told[-1][1].startswith("`channel` is for channels and rooms")
