"""Commands about the swarm: what people read about it, and the command that adds a server to it."""

import shlex

import pytest

from bot.commands.joining import PROCESS_BYTES, fit, read_memory
from bot.sessions.surveyor import choose_peers, find_peers
from bot.survey import SessionState, Unknown
from server.__main__ import parse_arguments
from swarm.checkpoint.fitting import BlockSize
from swarm.errors import ConfigError, SwarmTimeout
from tests.bot.platform import BOB
from tests.bot.surveys import BOOTSTRAP, THREE, server, survey
from tests.bot.test_commands import told
from tests.bot.world import World

FENCE = "```"
GIB = 1 << 30
LOOPBACK = BOOTSTRAP.replace("/dns4/swarm.example.org", "/ip4/127.0.0.1")
LOCAL = BOOTSTRAP.replace("/dns4/swarm.example.org", "/ip4/192.168.1.7")


def command_in(answer: str) -> list[str]:
    """The command that an answer tells to run, as the shell would split it."""
    _, code, _ = answer.split(FENCE)
    return shlex.split(code)


def asked(answer: str) -> dict[str, object]:
    """What the block server makes of that command."""
    words = command_in(answer)
    assert words[:2] == ["./murmur", "serve"]
    return vars(parse_arguments(words[2:]))


# --- status -------------------------------------------------------------------------------------------------


async def test_status_says_in_a_picture_and_in_sentences_how_the_swarm_is(world: World) -> None:
    assert (await told(world, "status")).splitlines() == [
        "`owner/model` can answer: all 8 blocks served, by 3 servers.",
        "```",
        "block    0   1   2   3   4   5   6   7",
        "servers  1   1   1   1   1   1   1   1",
        "",
        "blocks  tokens/s  free KV  server",
        "0-2          100     8192  server 1",
        "3-5          100     8192  server 2",
        "6-7          100     8192  server 3",
        "```",
        "Thin: every block has only 1 server.",
        "Speed: about 42 tokens/s in the newest answers.",
        "Your session: no conversation of yours yet.",
        "Queue: nothing is waiting.",
        "Murmur 0.1.0",
    ]


async def test_a_gap_is_to_be_seen_and_named(world: World) -> None:
    world.brain.swarm = survey(server(1, 0, 3), server(2, 5, 8), server(3, 3, 5, state="draining"))
    answer = await told(world, "status")
    assert answer.startswith("`owner/model` cannot answer: nobody serves blocks 3-4 of 8. `contribute` tells")
    assert "servers  1   1   1   -   -   1   1   1\n         - nobody\n" in answer
    assert "server 3 (draining)" in answer
    assert "Speed" not in answer


async def test_a_swarm_of_nobody_and_one_that_is_out_of_reach_are_told_apart(world: World) -> None:
    world.brain.swarm = survey()
    assert "cannot answer: no server is there. `contribute`" in await told(world, "status")
    world.brain.swarm = survey(num_peers=0)
    assert "I reach nobody in the swarm right now" in await told(world, "status")


async def test_many_blocks_and_servers_still_fit_on_a_telephone(world: World) -> None:
    many = [server(number, number, number + 20, throughput=1e9, free_tokens=2**53) for number in range(60)]
    world.brain.swarm = survey(*many, num_blocks=79)
    picture = (await told(world, "status")).split(FENCE)[1]
    assert "and 52 more" in picture
    assert max(map(len, picture.splitlines())) <= 48
    assert len(picture.splitlines()) <= 16


async def test_what_a_server_calls_itself_is_no_markup_and_no_line_of_its_own(world: World) -> None:
    world.brain.swarm = survey(server(1, 0, 8, public_name="```\u202e @everyone **bold** and so on for ever"))
    answer = await told(world, "status")
    assert answer.count(FENCE) == 2
    assert "\u202e" not in answer
    assert "''' @everyone .." in answer


async def test_a_swarm_that_does_not_say_how_it_is_gets_one_sentence_and_the_rest_is_told(
    world: World,
) -> None:
    world.brain.survey_error = SwarmTimeout("not in time")
    sentence, *mine = (await told(world, "status")).splitlines()
    assert sentence == "The swarm did not say in time how it is; please ask again in a moment."
    assert [line.partition(":")[0] for line in mine] == ["Your session", "Queue", "Murmur 0.1.0"]


@pytest.mark.parametrize("command", ["status", "model list", "contribute"])
async def test_silence_is_not_answered_with_silence(world: World, command: str) -> None:
    world.brain.is_silent = True
    assert "The swarm did not say in time" in await told(world, command)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (SessionState("live", 12, 12), "live (12 tokens); your next message goes on at once."),
        (SessionState("detached", 12, 12), "detached (12 tokens); servers keep it"),
        (SessionState("parked", 0, 12), "parked; with your next message servers are told it again (12"),
        (SessionState("parked"), "parked; with your next message servers are told it again."),
        (SessionState("rebuilding", 128, 900), "rebuilding: 128 of 900 tokens."),
        (SessionState("rebuilding"), "rebuilding."),
        (SessionState("failed"), "failed; your next message begins a new session"),
    ],
)
async def test_status_tells_how_the_session_here_is(world: World, state: SessionState, words: str) -> None:
    await world.ask("one")
    world.brain.states = {1: state}
    assert f"Your session: {words}" in await told(world, "status")
    assert "no conversation of yours yet" not in await told(world, "status")


async def test_status_tells_a_place_in_the_queue(world: World) -> None:
    world.brain.answer = lambda prompt: "letters " * 20
    await world.say("first")
    await world.until(lambda: world.port.messages)
    assert await status_line(world, "Queue") == "Queue: your answer is being written."
    await world.say("second")
    await world.until(lambda: ("e3", "queued") in world.port.marks)
    assert await status_line(world, "Queue") == "Queue: 1 question of yours waiting, 1 ahead."
    assert (
        await status_line(world, "Queue", author=BOB) == "Queue: 1 question of others waiting, none of yours."
    )
    await world.quiet()


async def status_line(world: World, word: str, **options: object) -> str:
    """A line of what somebody is told meanwhile."""
    before = len(world.port.told)
    await world.call("status", **options)  # type: ignore[arg-type]
    await world.until(lambda: len(world.port.told) > before)
    return next(line for line in world.port.told[before][1].splitlines() if line.startswith(word))


# --- models -------------------------------------------------------------------------------------------------


async def test_models_are_listed_as_far_as_they_are_served_and_the_first_one_answers(world: World) -> None:
    world.brain.others = [
        survey(server(1, 0, 3), num_blocks=8),
        survey(),
        Unknown("a/b`c", "a/b is neither a directory nor in the cache"),
    ]
    assert (await told(world, "model list")).splitlines() == [
        "`owner/model`: all 8 blocks served, by 3 servers; about 42 tokens/s. This one answers.",
        "`owner/model`: 3 of 8 blocks served, by 1 server; nobody has blocks 3-7.",
        "`owner/model`: nobody serves it.",
        "`a/b'c`: nothing is known of it: a/b is neither a directory nor in the cache.",
    ]


# --- contribute ---------------------------------------------------------------------------------------------


async def test_contribute_gives_a_command_that_the_server_understands(world: World) -> None:
    answer = await told(world, "contribute", memory="8GB")
    wanted = asked(answer)
    assert (wanted["model"], wanted["initial_peers"]) == ("owner/model", [BOOTSTRAP])
    assert (wanted["num_blocks"], wanted["quantization"], wanted["blocks"]) == (8, "none", None)
    assert "any of the 8 blocks, with one server each" in answer
    for word in ("Port:", "--announce-maddrs", "IP address", "bandwidth", "can read"):
        assert word in answer
    assert not any(word in answer for word in ("earn", "credit", "quota")), "credit is not there yet"
    assert len(answer) < 1900, "one message on every platform"


async def test_without_memory_the_server_takes_what_fits(world: World) -> None:
    answer = await told(world, "contribute")
    assert asked(answer)["num_blocks"] is None
    assert "as many blocks as fit" in answer


async def test_contribute_names_the_blocks_that_lack_servers(world: World) -> None:
    world.brain.swarm = survey(server(1, 0, 3), server(2, 5, 8))
    assert "Most needed: blocks 3-4 of 8, which nobody serves." in await told(world, "contribute")
    world.brain.swarm = survey(*THREE, server(4, 0, 6))
    assert "Most needed: blocks 6-7, with one server each." in await told(world, "contribute")
    world.brain.swarm = survey(num_peers=0)
    assert asked(await told(world, "contribute"))["initial_peers"] == [BOOTSTRAP]


async def test_memory_that_is_short_is_used_better_by_quantization(world: World) -> None:
    world.brain.swarm = survey(server(1, 0, 3), num_blocks=32)
    answer = await told(world, "contribute", memory="8 GB")
    assert asked(answer)["num_blocks"] == 13
    assert "Of 32 blocks 13 fit into 8.0 GB" in answer
    assert "23 with `--quantization int8`, 32 with `--quantization nf4`" in answer
    only = asked(await told(world, "contribute", memory="1GB"))
    assert (only["num_blocks"], only["quantization"]) == (1, "int8")
    assert "Not one block fits into that: it takes 838 MB of free memory" in await told(
        world, "contribute", memory="300m"
    )


def test_what_fits_is_what_a_server_counts_beside_its_own_process() -> None:
    size = BlockSize(400 << 20, 4096)
    assert fit(8 * GIB + PROCESS_BYTES, {"none": size}, 80).num_blocks == {"none": 15}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GB", 8 * 10**9),
        ("16 GiB", 16 * GIB),
        ("24g", 24 * 10**9),
        ("8", 8 * 10**9),
        ("1,5TiB", int(1.5 * 1024 * GIB)),
        ("512mb", 512 * 10**6),
        (" 8.25 gib ", int(8.25 * GIB)),
    ],
)
def test_people_write_memory_in_many_ways(text: str, size_bytes: int) -> None:
    assert read_memory(text) == size_bytes


HOSTILE = [
    "0", "-8GB", "8PB", "1e9", "nan", "inf", "0x10", "8GBGB", "8iB", "٨GB", "8 GB; rm -rf ~", "$(id)", "`id`",
    "8\nGB", "9" * 30_000, "1." + "0" * 5000, "9999999TB", "@everyone", "GB", "", " ", "8\x00GB",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_is_no_memory_gets_one_sentence(world: World, text: str) -> None:
    assert await told(world, "contribute", memory=text) == (
        "memory is what your machine has free for it, as in `contribute 16GB`."
    )


async def test_a_swarm_on_one_machine_says_so_and_its_servers_need_no_other_address(world: World) -> None:
    model = "/srv/my models/it's"
    world.brain.swarm = survey(*THREE, model=model, is_folder=True, peers=(LOOPBACK,), reach="machine")
    answer = await told(world, "contribute")
    wanted = asked(answer)
    assert "addresses of one machine only" in answer
    assert (wanted["model"], wanted["host_maddrs"]) == (model, ["/ip4/127.0.0.1/tcp/0"])
    assert "the very same files" not in answer


async def test_in_a_local_network_that_is_said_and_a_models_files_are_needed(world: World) -> None:
    world.brain.swarm = survey(*THREE, model="/srv/m", is_folder=True, peers=(LOCAL,), reach="network")
    answer = await told(world, "contribute")
    assert asked(answer)["model"] == "./owner/model"
    assert "/srv" not in answer, "where things are on the bot's machine is nobody's business"
    assert "one local network only" in answer
    assert "the very same files" in answer
    world.brain.swarm = survey(*THREE, peers=())
    assert "ask again in a minute" in await told(world, "contribute", memory="8GB")


async def test_a_model_whose_blocks_cannot_be_measured_still_has_a_command(world: World) -> None:
    world.brain.sizes_error = ConfigError("what it keeps per token is unknown")
    answer = await told(world, "contribute", memory="8GB")
    assert answer == "I cannot tell what a block of this model takes; `contribute` alone gives the command."
    assert command_in(await told(world, "contribute"))


def test_only_addresses_become_a_part_of_the_command() -> None:
    peer = BOOTSTRAP.rpartition("/p2p/")[2]
    hostile = [
        f"/ip4/1.2.3.4/tcp/1; rm -rf ~/p2p/{peer}",
        f"/ip4/$(id)/tcp/1/p2p/{peer}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{peer}\n",
        "/ip4/1.2.3.4/tcp/1",
        "",
    ]
    assert choose_peers(hostile) == ()
    assert choose_peers([*hostile, LOOPBACK]) == (LOOPBACK,)


def test_the_swarm_is_joined_through_initial_peers_and_through_servers_only_if_those_are_gone() -> None:
    other = LOCAL[:-1] + "V"
    report = survey(
        server(1, 0, 8, addresses=(LOCAL,)),
        server(2, 0, 8, addresses=(other,), is_relayed=True),
        server(3, 0, 8, addresses=("/ip4/1.2.3.4/tcp/1;reboot/p2p/x",)),
    ).report
    assert find_peers([BOOTSTRAP, LOOPBACK], lambda peer: True, report) == (BOOTSTRAP,)
    assert find_peers([BOOTSTRAP], lambda peer: False, report) == (LOCAL,)
    assert find_peers([BOOTSTRAP], lambda peer: False, survey().report) == (BOOTSTRAP,)
    assert find_peers([], lambda peer: False, survey().report) == ()


def test_the_widest_reach_counts_and_a_peer_is_named_once() -> None:
    other = LOCAL[:-1] + "V"
    assert choose_peers([LOOPBACK, LOCAL, BOOTSTRAP, other]) == (BOOTSTRAP,)
    assert choose_peers([LOOPBACK, LOCAL, other]) == (LOCAL, other)
    assert len(choose_peers([LOCAL[:-1] + letter for letter in "abcde"])) == 3
