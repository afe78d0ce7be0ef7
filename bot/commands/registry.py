"""Commands as data: adapters make slash commands, help texts and a grammar of `!` lines from it. Pure."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bot.words import Call

Who = Literal["anybody", "moderator", "admin"]
Answer = Literal["public", "private"]

MAX_NAME_LETTERS = 32
MAX_SUMMARY_LETTERS = 100
_NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. The last one of a command may take the whole rest of a line."""

    name: str
    summary: str
    is_required: bool = False
    takes_rest: bool = False
    choices: tuple[str, ...] = ()
    kind: Literal["text", "person"] = "text"
    """What it names, for platforms that let people choose; everywhere else it is typed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: `name` is one word, or two for one of a group (`persona set`)."""

    name: str
    summary: str
    who: Who = "anybody"
    answer: Answer = "private"
    arguments: tuple[Argument, ...] = ()
    example: str = ""
    is_personal: bool = False
    """Its answer is about the person who asks, and nobody else's business."""

    @property
    def usage(self) -> str:
        """The command with its arguments, as help texts show it: `quota [user]`."""
        shown = (f"{it.name}" if it.is_required else f"[{it.name}]" for it in self.arguments)
        return " ".join((self.name, *shown))


@dataclass(frozen=True, slots=True)
class Mistake:
    """A line that is no command, and what to say about it."""

    sentence: str
    command: str = ""
    """What was meant, as far as that can be told: a command, or the first word of a group."""


@dataclass(frozen=True, slots=True)
class Registry:
    """All commands, by name."""

    commands: tuple[Command, ...]
    _by_name: Mapping[str, Command] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {command.name: command for command in self.commands}
        for problem in _problems(self.commands):
            raise ValueError(problem)
        object.__setattr__(self, "_by_name", by_name)

    def __iter__(self) -> Iterator[Command]:
        return iter(self.commands)

    def get(self, name: str) -> Command | None:
        """The command of that name."""
        return self._by_name.get(name)

    def read(self, line: str, prefix: str, *, is_admin: bool = False) -> Call | Mistake:
        """A command that somebody typed, without the prefix that made it one; `prefix` is for what we say.

        For whoever is no admin there are no admin commands.
        """
        words = line.split()
        shown = {name: it for name, it in self._by_name.items() if is_admin or it.who != "admin"}
        for num_words in (2, 1):
            command = shown.get(" ".join(words[:num_words]).lower())
            if command is not None and len(words) >= num_words:
                return self._with_arguments(command, _rest_of(line, num_words), prefix)
        return _no_such(words, prefix, shown)

    def _with_arguments(self, command: Command, rest: str, prefix: str) -> Call | Mistake:
        given: dict[str, str] = {}
        for argument in command.arguments:
            value, rest = (rest, "") if argument.takes_rest else _first_word(rest)
            if not value and argument.is_required:
                needs = f"needs {argument.name}: {argument.summary}"
                return Mistake(f"`{prefix}{command.usage}` {needs}.", command.name)
            if value and argument.choices and value.lower() not in argument.choices:
                choices = ", ".join(argument.choices)
                return Mistake(f"{argument.name} is one of {choices}, not `{_safe(value)}`.", command.name)
            if value:
                given[argument.name] = value.lower() if argument.choices else value
        if rest:
            return Mistake(f"`{prefix}{command.usage}` takes no `{_safe(rest)}`.", command.name)
        return Call(command.name, given)


def _no_such(words: list[str], prefix: str, names: Collection[str]) -> Mistake:
    if not words:
        return Mistake(f"Which command? `{prefix}help` names all.")
    first = words[0].lower()
    group = [name for name in names if name.startswith(f"{first} ")]
    if len(group) == 1:
        return Mistake(f"Write `{prefix}{group[0]}`.", first)
    if group:
        listed = ", ".join(f"`{prefix}{it}`" for it in group)
        return Mistake(f"`{prefix}{first}` is one of {listed}.", first)
    near = difflib.get_close_matches(first, names, n=1, cutoff=0.6)
    hint = f"did you mean `{prefix}{near[0]}`?" if near else f"`{prefix}help` names all commands."
    return Mistake(f"There is no command `{_safe(' '.join(words[:2]).lower())}`; {hint}")


def _problems(commands: Iterable[Command]) -> Iterator[str]:
    seen: set[str] = set()
    for command in commands:
        words = command.name.split(" ")
        names = (*words, *(argument.name for argument in command.arguments))
        summaries = (command.summary, *(argument.summary for argument in command.arguments))
        if command.name in seen or len(words) > 2:
            yield f"{command.name} is declared twice, or has more than two words"
        if any(not _NAME.fullmatch(name) or len(name) > MAX_NAME_LETTERS for name in names):
            yield f"{command.name} has a name that platforms do not take"
        if any(not summary or len(summary) > MAX_SUMMARY_LETTERS for summary in summaries):
            yield f"{command.name} says too much, or nothing"
        if any(argument.takes_rest for argument in command.arguments[:-1]):
            yield f"{command.name} leaves nothing for its last argument"
        seen.add(command.name)


def _rest_of(line: str, num_words: int) -> str:
    for _ in range(num_words):
        _, line = _first_word(line)
    return line


def _first_word(line: str) -> tuple[str, str]:
    word, *rest = line.strip().split(maxsplit=1) or [""]
    return word, (rest[0] if rest else "").strip()


def _safe(text: str) -> str:
    """What somebody typed, short and without what would end inline code."""
    return text.replace("`", "'")[:40]
