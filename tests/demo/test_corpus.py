"""The demo model's corpus: phrasings, conversations, packing; and that no examination question is in it."""

import itertools
import random
import re
import tomllib
from pathlib import Path

import pytest

import demo.corpus
from demo.corpus.conversations import Conversations
from demo.corpus.grammar import Grammar, normalise
from demo.corpus.intents import Corpus, load_corpus
from demo.corpus.variation import vary
from demo.heldout import load_heldout
from demo.packing import NOT_LEARNT, Sample, pack

REQUIRED = {
    *("what_is_murmur", "how_it_works", "how_contribute", "what_is_quota", "who_can_read", "run_bot"),
    *("hello", "thanks", "bye", "joke", "who_are_you", "are_you_human", "what_can_you_do", "server_dies"),
    *("block", "span", "hop", "route", "session", "petals", "which_model", "speed", "gpu_needed", "systems"),
    *("licence", "earn_quota", "claim_code", "status", "help", "forget", "export", "privacy", "encryption"),
    *("discord_setup", "matrix_setup", "serve", "unknown"),
}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def drawn_questions(corpus: Corpus, num_conversations: int) -> list[str]:
    withheld = load_heldout().all_questions()
    conversations = itertools.islice(Conversations(corpus, random.Random(7), withheld), num_conversations)
    return [turn.question for conversation in conversations for turn in conversation.turns]


def test_a_phrasing_stands_for_all_its_alternatives() -> None:
    phrasing = Grammar({"verb": ["run", "(start|stop)"]}).parse("how (do|can) i {verb} it( now|)")
    drawn = {phrasing.draw(random.Random(seed)) for seed in range(500)}
    assert phrasing.num_questions == 2 * 3 * 2
    assert len(drawn) == 12
    assert all(re.fullmatch(phrasing.pattern, normalise(question)) for question in drawn)
    assert not re.fullmatch(phrasing.pattern, "how do i break it")


@pytest.mark.parametrize("text", ["how (do i", "how do) i", "what is {nothing}"])
def test_a_broken_phrasing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"bracket|list"):
        Grammar({}).parse(text)


def test_every_area_of_the_brief_has_its_intents(corpus: Corpus) -> None:
    assert set(corpus.intents) >= REQUIRED
    assert len(corpus.intents) >= 40


def test_answers_are_different_whole_sentences_of_modest_length(corpus: Corpus) -> None:
    answers = [intent.answer for intent in corpus.intents.values()]
    assert len(set(answers)) == len(answers)
    assert all(answer[0].isalnum() or answer.startswith("./") for answer in answers)
    assert all(answer[-1] in ".!?" and len(answer) < 320 for answer in answers)


def test_no_held_out_question_is_among_the_phrasings(corpus: Corpus) -> None:
    phrasings = [question for intent in corpus.intents.values() for question in intent.questions]
    phrasings += [question for rule in corpus.follow_ups for question in rule.questions]
    patterns = [re.compile(phrasing.pattern) for phrasing in [*phrasings, *corpus.repeat]]
    learnt = [
        text
        for text in load_heldout().all_questions()
        if any(pattern.fullmatch(normalise(text)) for pattern in patterns)
    ]
    assert learnt == []


def test_no_held_out_question_is_drawn_while_training(corpus: Corpus) -> None:
    withheld = set(map(normalise, load_heldout().all_questions()))
    assert withheld.isdisjoint(map(normalise, drawn_questions(corpus, 10_000)))


def test_a_withheld_question_never_comes(corpus: Corpus) -> None:
    stream = Conversations(corpus, random.Random(1), ["Hello!"])
    questions = [stream.draw(1).turns[0].question for _ in range(3000)]
    assert "hello" not in map(normalise, questions)


def test_the_held_out_set_is_large_and_names_known_intents(corpus: Corpus) -> None:
    heldout = load_heldout()
    asked = [question.intent for question in heldout.questions]
    assert len(asked) >= 120
    assert len({normalise(question.text) for question in heldout.questions}) == len(asked)
    assert set(asked) >= REQUIRED
    assert {turn.intent for dialogue in heldout.dialogues for turn in dialogue} | set(asked) <= set(
        corpus.intents
    )


def test_the_same_seed_draws_the_same_conversations(corpus: Corpus) -> None:
    first, second = (
        list(itertools.islice(Conversations(corpus, random.Random(3), []), 50)) for _ in range(2)
    )
    assert first == second


def test_conversations_come_with_and_without_a_system_prompt_and_with_follow_ups(corpus: Corpus) -> None:
    drawn = list(itertools.islice(Conversations(corpus, random.Random(3), []), 2000))
    assert 0.2 < sum(bool(conversation.system) for conversation in drawn) / len(drawn) < 0.3
    assert {len(conversation.turns) for conversation in drawn} == {1, 2, 3, 4}
    assert all(
        turn.answer == corpus.intents[turn.intent].answer
        for conversation in drawn
        for turn in conversation.turns
    )


def test_variations_leave_commands_alone(corpus: Corpus) -> None:
    rng = random.Random(0)
    assert {vary("/stop", corpus, rng) for _ in range(50)} == {"/stop"}
    varied = [vary("what does /contribute do", corpus, rng) for _ in range(200)]
    assert len(set(varied)) > 50
    assert sum("/contribute" in question for question in varied) > 180


def test_packed_samples_see_only_themselves() -> None:
    samples = [
        Sample([number] * length, [number] * length) for number, length in ((1, 4), (2, 3), (3, 6), (4, 7))
    ]
    batch = pack(iter(samples), num_rows=2, row_tokens=8)
    assert batch.ids.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0], [4, 4, 4, 4, 4, 4, 4, 0]]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert batch.labels[0].tolist() == [1, 1, 1, NOT_LEARNT, 2, 2, NOT_LEARNT, NOT_LEARNT]
    assert batch.mask[0, 0, 5].tolist() == [False] * 4 + [True, True, False, False]


def test_the_corpus_is_plain_toml_that_names_each_intent_once() -> None:
    areas = sorted((Path(demo.corpus.__file__).parent / "areas").glob("*.toml"))
    names = [name for area in areas for name in tomllib.loads(area.read_text(encoding="utf-8"))]
    assert len(areas) >= 8
    assert len(set(names)) == len(names)
