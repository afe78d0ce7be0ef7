"""Further families over a real network: two hops, sessions beside, one server lost, and the same words."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.client import SwarmModel
from swarm.inference import InferenceSession
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.end_to_end.exact import Answer, check_answer, each_family, load_small_model, prompt, small_model
from tests.end_to_end.swarm import Offer, Swarm, open_swarm, spans
from tests.end_to_end.test_exact_drain import drain
from tests.models import FURTHER_FAMILIES, make_model
from tests.swarm.tokenizers_for_tests import byte_level

OFFERS = [Offer(0, 2), Offer(2, 6, blocks_per_s=1e5), Offer(2, 6, blocks_per_s=100.0)]
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=24)


@each_family({"gemma3", "falcon-alibi"}, FURTHER_FAMILIES)
async def test_two_hops_of_which_one_is_lost_answer_as_the_unsplit_model(family: str) -> None:
    model, ids = small_model(family), prompt(1, 45)
    async with open_swarm(model, *OFFERS) as swarm:
        client = await swarm.client()
        async with client.session() as parent, client.session() as other:
            await parent.feed(ids[:40])
            await parent.feed(ids[40:])
            assert spans(parent.route) == [(0, 2), (2, 6)]
            async with parent.fork(40) as child:
                answers = [
                    Answer(model, parent, ids + prompt(4, 1), 16),
                    Answer(model, child, ids[:40] + prompt(2, 3), 16),
                    Answer(model, other, prompt(3, 20), 16),
                ]
                for num_tokens in (8, None):
                    async with asyncio.TaskGroup() as group:
                        for answer in answers:
                            group.create_task(answer.advance(num_tokens))
                    if num_tokens:
                        swarm.path(parent)[1].kill()
                parent.rollback(30)
                told = await check_answer(model, parent, ids[:30] + prompt(5, 2), 8)
            assert swarm.path(parent) == [swarm.servers[0], swarm.servers[2]]
            ticket, held = parent.detach(), parent.ids
        async with client.session(ticket=ticket, ids=held) as again:
            before = executed(swarm, again)[2]
            await check_answer(model, again, told, 4)
            assert executed(swarm, again)[2] - before == 1 + 3, "attached, and not told again"
        assert swarm.servers[0].recomputed_tokens == 0
        await swarm.check_clean()


async def test_a_model_tuned_on_bare_tasks_chats_as_the_unsplit_one(tmp_path: Path) -> None:
    tokenizer = byte_level(chat_template=None)
    path = make_model(tmp_path, "bloom", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(path)
    small = load_small_model(path)
    bloomz = load_tokenizer(small.checkpoint, chat_template="instruction")
    messages, answer = [{"role": "user", "content": "Translate to French: the lazy dog."}], None
    async with open_swarm(small, *OFFERS) as swarm:
        client = await swarm.client()
        model = SwarmModel(small.checkpoint, small.ends, bloomz, client.network)
        async with model.session() as session:
            for question in ("And the fox?", "<|end|>", ""):
                answer = model.answer(session, messages, answer, GREEDY)
                async for _ in answer:
                    pass
                assert answer.ids == small.greedy(answer.prompt_ids, 24)[: len(answer.ids)]
                messages += [
                    {"role": "assistant", "content": answer.text},
                    {"role": "user", "content": question},
                ]
                if question == "<|end|>":
                    swarm.path(session)[1].kill()
                num_ends = [id_ in bloomz.eos_ids for id_ in answer.prompt_ids].count(True)
                assert num_ends == len(messages) // 2 - 1, "one behind each answer, none that a user wrote"


async def test_who_goes_back_to_what_windows_have_forgotten_is_replayed(tmp_path: Path) -> None:
    model = load_small_model(make_model(tmp_path, "gemma3", max_position_embeddings=4096))
    ids = prompt(5, 2600)
    async with open_swarm(model, Offer(0, 2, room_tokens=4096), Offer(2, 6, room_tokens=4096)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            model.check_hidden(ids, await session.feed(ids, rows=4))
            session.rollback(2200)
            await check_answer(model, session, ids[:2200] + prompt(6, 3), 4)
            assert {server.recomputed_tokens for server in swarm.servers} == {0}
            async with session.fork(50) as child:
                await check_answer(model, child, ids[:50] + prompt(7, 3), 4)
            before = executed(swarm, session)
            session.rollback(60)
            await check_answer(model, session, ids[:60] + prompt(8, 3), 8)
            assert [now - then for now, then in zip(executed(swarm, session), before, strict=True)] == [
                70,
                70,
            ]
        await swarm.check_clean()


@pytest.mark.slow
@pytest.mark.timeout(240)  # gpt-oss takes 25 s on a quiet machine
@pytest.mark.parametrize("family", ["gemma3", "mistral", "gpt-oss"])
async def test_pages_that_windows_have_shortened_are_handed_over(family: str, tmp_path: Path) -> None:
    model = load_small_model(make_model(tmp_path, family, max_position_embeddings=4096))
    ids = prompt(9, 2500)
    async with open_swarm(model, *(replace(offer, room_tokens=4096) for offer in OFFERS)) as swarm:
        client = await swarm.client()
        _, old, spare = swarm.servers
        async with client.session() as session:
            ids = await check_answer(model, session, ids, 4)
            await drain(old, client)
            ids = await check_answer(model, session, ids, 8)
            assert swarm.path(session)[1] is spare
            assert spare.executed_tokens == 1 + 7, "only what came after the commit"
            assert {server.recomputed_tokens for server in swarm.living} == {0}
            for position in (2400, 100):
                session.rollback(position)
                await check_answer(model, session, ids[:position] + prompt(position, 2), 4)
        await swarm.check_clean()


def executed(swarm: Swarm, session: InferenceSession) -> list[int]:
    """Tokens that each server has computed for a session, replays included."""
    ticket = session.ticket()
    return [
        sum(
            s.counters.executed_tokens for s in server.host.table.sessions() if bytes(s.key.session) in ticket
        )
        for server in swarm.servers
    ]
