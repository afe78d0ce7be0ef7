"""The kinds of values that settings have, each with its bounds and with words for what is allowed. Pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

MAX_PATH_LETTERS = 1000
MAX_SECRET_LETTERS = 4096
MAX_SOCKET_BYTES = 100
MAX_ITEMS = 1000
MAX_DISCORD_ID = 2**64 - 1
MAX_PERSONA_LETTERS = 8000
MAX_MESSAGE_LETTERS = 32_000

_SERVER = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_USER = rf"@[^\s:@]+:{_SERVER}"


class Section(BaseModel):
    """A section of the file: nothing that it does not know, nothing converted, nothing changed later."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


@dataclass(frozen=True, slots=True)
class Allowed:
    """Words for what a kind of value may be; they follow `must be`."""

    words: str


def _path(path: Path) -> Path:
    if not path.name or "\0" in str(path) or len(str(path)) > MAX_PATH_LETTERS:
        raise ValueError("no path")
    return path


def _socket(path: Path) -> Path:
    if len(str(path).encode("utf-8", "surrogateescape")) > MAX_SOCKET_BYTES:
        raise ValueError("too long")
    return path


AnyPath = Annotated[Path, Field(strict=False), AfterValidator(_path), Allowed('the path of a file: "name"')]
SocketPath = Annotated[
    AnyPath,
    AfterValidator(_socket),
    Allowed(f"the path of a file, of at most {MAX_SOCKET_BYTES} bytes: systems take no more for a socket"),
]

Port = Annotated[int, Field(ge=0, le=65_535)]
Host = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9.:-]{1,255}$"),
    Allowed('an address of this machine, such as "127.0.0.1" or "::1"'),
]
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[^\s`](?:[^\n\r\t`]{0,30}[^\s`])?$"),
    Allowed("a name of 1 to 32 letters, in one line and without backquotes"),
]
Prefix = Annotated[
    str,
    StringConstraints(pattern=r"^[!-/:-@\[-_{-~]{1,3}$"),
    Allowed('1 to 3 punctuation marks, such as "!"'),
]
Persona = Annotated[str, StringConstraints(max_length=MAX_PERSONA_LETTERS)]
Notice = Annotated[str, StringConstraints(min_length=1, max_length=1500)]

Model = Annotated[
    str,
    StringConstraints(pattern=r"^[^\s\x00](?:[^\n\r\x00]{0,498}[^\s\x00])?$"),
    Allowed('a model of the Hub ("owner/model") or a folder ("./my-model")'),
]
Models = Annotated[tuple[Model, ...], Field(max_length=16)]
Peer = Annotated[
    str,
    StringConstraints(pattern=r"^/[^\s]{1,400}/p2p/[A-Za-z0-9]{1,100}$"),
    Allowed("the address of a peer, such as /ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."),
]
Peers = Annotated[tuple[Peer, ...], Field(max_length=100)]

DiscordId = Annotated[
    int,
    Field(ge=1, le=MAX_DISCORD_ID),
    Allowed("an id of Discord: a whole number, without quotes"),
]
DiscordIds = Annotated[tuple[DiscordId, ...], Field(max_length=MAX_ITEMS)]

Homeserver = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:https?://{_SERVER}/?)?$", max_length=255),
    Allowed('the address of a homeserver, such as "https://matrix.example.org"'),
]
OwnUser = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:{_USER})?$", max_length=255),
    Allowed('a user of Matrix, such as "@murmur:example.org"'),
]
MatrixUserOrServer = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:{_USER}|{_SERVER}|\*)$", max_length=255),
    Allowed('a user ("@ada:example.org"), a server ("example.org") or everybody ("*")'),
]
MatrixPeople = Annotated[tuple[MatrixUserOrServer, ...], Field(max_length=MAX_ITEMS)]
MatrixRoom = Annotated[
    str,
    StringConstraints(pattern=r"^!\S{1,254}$"),
    Allowed('the id of a room, such as "!abc:example.org"'),
]
MatrixRooms = Annotated[tuple[MatrixRoom, ...], Field(max_length=MAX_ITEMS)]
Admin = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:{_USER}|[0-9]{{1,20}})$", max_length=255),
    Allowed('a user of Matrix ("@ada:example.org") or an id of Discord ("123456789012345678"), in quotes'),
]
Admins = Annotated[tuple[Admin, ...], Field(max_length=100)]

Secret = Annotated[
    SecretStr, Field(max_length=MAX_SECRET_LETTERS), Allowed(f"text of at most {MAX_SECRET_LETTERS} letters")
]
"""Empty if there is none."""
# Upper case alone: a secret that was pasted here by mistake is none, and no report shows it.
SecretEnv = Annotated[
    str,
    StringConstraints(pattern=r"^(?:[A-Z_][A-Z0-9_]{0,63})?$"),
    Allowed("the name of an environment variable, in upper case, that holds the secret"),
]
SecretFile = Annotated[
    str,
    StringConstraints(pattern=r"^[^\x00\n\r]*$", max_length=MAX_PATH_LETTERS),
    Allowed("the path of a file that holds the secret"),
]
NO_SECRET = SecretStr("")
