"""Examines a demo model with the held-out questions: `python -m demo.evaluate [--model DIR]`.

An answer is right if it is, spaces aside, the canonical answer of the question's intent. Decoding is greedy.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from demo.corpus.intents import Corpus, load_corpus
from demo.heldout import Question, load_heldout
from demo.train import MODEL_DIR, say

Message = dict[str, str]

MAX_ANSWER_TOKENS = 100
BATCH_SIZE = 64


@dataclass(frozen=True)
class Answered:
    """A question with the model's answer and the right one."""

    question: Question
    area: str
    answer: str
    right_answer: str

    @property
    def is_right(self) -> bool:
        return self.answer.split() == self.right_answer.split()


class Examinee:
    """A model of a local folder and its tokenizer, answering by greedy decoding."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)

    def answer(self, chats: Sequence[Sequence[Message]]) -> list[str]:
        """Return the answer to the last message of each chat; chats of similar length share a batch."""
        prompts = [self._render(chat) for chat in chats]
        answers = [""] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(prompts), BATCH_SIZE):
            chosen = by_length[start : start + BATCH_SIZE]
            for i, answer in zip(chosen, self._answer_batch([prompts[i] for i in chosen]), strict=True):
                answers[i] = answer
        return answers

    def _render(self, chat: Sequence[Message]) -> str:
        prompt = self._tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, tokenize=False)
        assert isinstance(prompt, str)  # a chat without ids is text
        return prompt

    def _answer_batch(self, prompts: Sequence[str]) -> list[str]:
        inputs = self._tokenizer(prompts, padding=True, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=MAX_ANSWER_TOKENS,
                do_sample=False,
            )
        generated = output[:, inputs["input_ids"].shape[1] :]
        return list(self._tokenizer.batch_decode(generated, skip_special_tokens=True))


def examine(examinee: Examinee, corpus: Corpus, questions: Sequence[Question]) -> list[Answered]:
    """Ask single questions."""
    answers = examinee.answer([[{"role": "user", "content": question.text}] for question in questions])
    return [_judge(question, answer, corpus) for question, answer in zip(questions, answers, strict=True)]


def examine_dialogues(
    examinee: Examinee, corpus: Corpus, dialogues: Sequence[Sequence[Question]]
) -> list[Answered]:
    """Ask the questions of each dialogue in turn, with the model's own earlier answers before them."""
    chats: list[list[Message]] = [[] for _ in dialogues]
    answered: list[Answered] = []
    for turn in range(max(map(len, dialogues), default=0)):
        asked = [i for i, dialogue in enumerate(dialogues) if turn < len(dialogue)]
        for i in asked:
            chats[i].append({"role": "user", "content": dialogues[i][turn].text})
        for i, answer in zip(asked, examinee.answer([chats[i] for i in asked]), strict=True):
            chats[i].append({"role": "assistant", "content": answer})
            answered.append(_judge(dialogues[i][turn], answer, corpus))
    return answered


def share_right(answered: Sequence[Answered]) -> float:
    """Return the share of right answers, 0 to 1."""
    return sum(item.is_right for item in answered) / len(answered)


def _judge(question: Question, answer: str, corpus: Corpus) -> Answered:
    intent = corpus.intents[question.intent]
    return Answered(question, intent.area, answer, intent.answer)


def _print_report(title: str, answered: Sequence[Answered]) -> None:
    asked = Counter(item.area for item in answered)
    right = Counter(item.area for item in answered if item.is_right)
    say(f"{title}: {right.total()}/{asked.total()} right = {100 * share_right(answered):.1f} %")
    for area in sorted(asked):
        say(f"  {area:<14}{right[area]:>3}/{asked[area]:<3}")
    for item in answered:
        if not item.is_right:
            say(f"  wrong: {item.question.text!r} ({item.question.intent}) -> {item.answer!r}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluate", description="Examine a demo model.")
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="default: the bundled model")
    arguments = parser.parse_args()
    started = time.monotonic()
    corpus, heldout, examinee = load_corpus(), load_heldout(), Examinee(arguments.model)
    _print_report("held-out questions", examine(examinee, corpus, heldout.questions))
    _print_report("turns of dialogues", examine_dialogues(examinee, corpus, heldout.dialogues))
    say(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
