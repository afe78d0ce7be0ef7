"""The operator beside a whole bot: a real homeserver, a real swarm, processes of their own."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from tests.bot.operator.test_command import start
from tests.bot.test_operating import QUESTION, ROOT, answer_after, command, running_bot, write_config
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.processes import open_forge, open_process_swarm
from tests.matrix_peer.human import NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
pytestmark = pytest.mark.timeout(180)

GONE_S = 40.0


@pytest.mark.slow
async def test_the_operator_sees_sessions_ends_one_bans_somebody_and_lets_the_bot_leave(
    synapse: Synapse, new_human: NewHuman, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_talking_model(tmp_path_factory.mktemp("talking"))
    account = await asyncio.to_thread(synapse.register, "murmur")
    with open_forge(tmp_path_factory.mktemp("forge")) as forge, open_process_swarm(forge, model) as swarm:
        await asyncio.to_thread(swarm.start, "0:3", "3:6")
        config = write_config(tmp_path, account, synapse, swarm, model)
        login = command("matrix", "login", "--config", str(config))
        await asyncio.to_thread(subprocess.run, login, cwd=ROOT, capture_output=True, check=True)
        anna = await new_human("anna")
        with running_bot(config) as process:
            room = await anna.create_direct(account.user_id)
            await anna.wait_for_member(room, account.user_id)
            before = await answer_after(anna, room, account.user_id, QUESTION)
            (session,) = json.loads((await start(config, "admin", "sessions", "--json"))[1])
            assert (session["place"], session["state"]) == (f"matrix:{room}", "live")
            status, output, errors = await start(config, "admin", "kill", str(session["session"]))
            assert (status, "has ended" in output) == (0, True), errors
            assert (await start(config, "admin", "sessions", "--json"))[1] == "[]\n"
            assert len(before) > 40
            assert await answer_after(anna, room, account.user_id, "And then?"), "it goes on with a new one"
            assert (await start(config, "admin", "ban", anna.user_id, "1"))[0] == 0
            num_shown = len(anna.visible_text(room, by=account.user_id))
            await anna.say(room, "Hello?")
            assert (await start(config, "admin", "drain"))[0] == 0
            assert await asyncio.to_thread(process.wait, GONE_S) == 0
            await anna.sync(500)
            assert len(anna.visible_text(room, by=account.user_id)) == num_shown
            assert not (tmp_path / "control.sock").exists()
