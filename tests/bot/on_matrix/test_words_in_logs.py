"""What is said on Matrix is in no log, at no level, by no logger: neither plain nor encrypted, nor broken."""

from pathlib import Path

from bot.on_matrix.account import log_in
from tests.bot.eavesdropping import WORDS, eavesdropping
from tests.bot.on_matrix.test_encrypted_rooms import open_sealed_bot
from tests.bot.on_matrix.world import meet
from tests.matrix_peer.human import NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

QUESTION = f"Tell me of the {WORDS}."


async def test_behaviour_28_logs_of_matrix_contain_no_message_text(
    synapse: Synapse, new_human: NewHuman, store_path: Path
) -> None:
    account = synapse.register("murmur")
    anna, ben = await new_human("anna", encrypted=True), await new_human("ben")
    await log_in(synapse.url, account.user_id, account.password, store_path.parent / "matrix")
    with eavesdropping() as overheard:
        async with open_sealed_bot(synapse, account, store_path) as bot:
            sealed = await meet(anna, bot, direct=True, encrypted=True)
            await sealed.say(QUESTION)
            await sealed.reads(f"You said: {QUESTION}")
            plain = await meet(ben, bot, direct=True)
            asked = await plain.say(QUESTION)
            await plain.reads(f"You said: {QUESTION}")
            await ben.edit(plain.room_id, asked, f"{QUESTION} Please!")
            await plain.say(f"!persona set {WORDS}")
            await plain.say(f"!nothing {WORDS}")
            await ben.send(plain.room_id, {"msgtype": "m.text", "body": WORDS, "formatted_body": [WORDS]})
            related = {"msgtype": WORDS, "body": WORDS, "m.relates_to": {"rel_type": WORDS}}
            await ben.send(plain.room_id, related)
            await plain.say("Is that all?")
            await plain.reads("You said: Is that all?")
            await bot.quiet()
        assert overheard.num_lines > 0
        assert overheard.lines_with_words() == []
