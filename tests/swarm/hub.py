"""A Hub on 127.0.0.1 that serves repositories from directories, as far as its own client library asks.

Large files are named by their SHA-256, small ones by git's SHA-1, and each is served for the commit that is
asked for. It can want a token, lead to a store on another port for large files, and misbehave: see `Fault`.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
NEXT_COMMIT = "d" * 40
REPOSITORY = "someone/model"
PIECE_BYTES = 16 << 10


@dataclass
class Fault:
    """What is wrong with a file: the next `times` answers with a body have all of it."""

    headers: dict[str, str] = field(default_factory=dict)
    """Sent with HEAD and GET, `times` or not; an empty one is left out."""
    cut: int | None = None
    """The connection breaks after so many bytes."""
    pause_s: float = 0.0
    """Before each piece of `piece` bytes."""
    piece: int = PIECE_BYTES
    hangs: bool = False
    """Not a byte comes, not even of a head."""
    times: int = 1 << 30

    def strike(self, method: str) -> bool:
        if method != "GET":
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class FakeHub:
    """`requests`: method, file, range. `refuse`: an error code. `lie`: files that differ from their digest.

    `access` is public, private or gated; `tokens` that are known, and whether they may read. `seen`: who was
    asked, hub or store, for which path, and with what Authorization. `listed`: what it tells of all files.
    `moved`: repositories that have another name now.
    """

    folder: Path
    endpoint: str = ""
    store: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    refuse: str | None = None
    status: int | None = None
    lie: set[str] = field(default_factory=set)
    faults: dict[str, Fault] = field(default_factory=dict)
    access: str = "public"
    tokens: dict[str, bool] = field(default_factory=dict)
    versions: dict[str, dict[str, Path]] = field(default_factory=dict)
    listed: list[dict[str, object]] | None = None
    moved: dict[str, str] = field(default_factory=dict)
    is_closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.add(REPOSITORY, self.folder)

    def add(self, repository: str, folder: Path, commit: str = COMMIT) -> None:
        """From now on `main` of that repository is what `folder` holds; earlier commits stay."""
        self.versions.setdefault(repository, {})[commit] = folder

    def fetched(self) -> set[str]:
        return {name for method, name, _ in self.requests if method == "GET"}

    def weights_sent(self) -> dict[str, int]:
        """Bytes of weight files that have left, by file."""
        return {name: count for name, count in self.sent.items() if name.endswith(".safetensors")}

    def refusal(self, authorization: str, *, is_listing: bool) -> tuple[int, dict[str, str]] | None:
        """What the real one says to a token that is missing, unknown or without access.

        Everybody may know which files a gated model has.
        """
        if self.refuse:
            return 401 if self.refuse == "RepoNotFound" else 403, {"X-Error-Code": self.refuse}
        if self.status:
            return self.status, {}
        token = authorization.removeprefix("Bearer ")
        if token and self.tokens and token not in self.tokens:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        is_open = self.access == "public" or (self.access == "gated" and is_listing)
        if is_open or self.tokens.get(token):
            return None
        if self.access == "gated":
            return 403 if token else 401, {"X-Error-Code": "GatedRepo"}
        return 404 if token else 401, {"X-Error-Code": "RepoNotFound"}


@contextmanager
def open_hub(folder: Path, *, has_store: bool = False) -> Iterator[FakeHub]:
    hub = FakeHub(folder)
    with ExitStack() as stack:
        stack.callback(hub.is_closing.set)
        hub.endpoint = stack.enter_context(_serving(hub, _Handler))
        if has_store:
            hub.store = stack.enter_context(_serving(hub, _StoreHandler))
        yield hub
        hub.is_closing.set()


@contextmanager
def _serving(hub: FakeHub, handler: type["_Answering"]) -> Iterator[str]:
    class Handler(handler):  # type: ignore[misc, valid-type]
        the_hub = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = False
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that leave are no news
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answering(BaseHTTPRequestHandler):
    the_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def note(self, who: str) -> None:
        self.the_hub.seen.append((who, self.path, self.headers.get("Authorization", "")))

    def reply_file(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        """Answer with a file or a part of it, as wrongly as is wished."""
        hub = self.the_hub
        fault = hub.faults.get(name, Fault())
        headers = {"Accept-Ranges": "bytes"} | headers | fault.headers
        if name in hub.lie:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, body = 200, content
        if wanted is not None and "Accept-Ranges" in {k for k, value in headers.items() if value}:
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            status, body = 206, content[start : end + 1]
        self.reply(status, body, headers, name, fault if fault.strike(self.command) else Fault())

    def reply(
        self, status: int, body: bytes, headers: dict[str, str], name: str = "", fault: Fault | None = None
    ) -> None:
        fault, hub = fault or Fault(), self.the_hub
        if fault.hangs:
            hub.is_closing.wait()
            return
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send_body(name, body, fault)

    def _send_body(self, name: str, body: bytes, fault: Fault) -> None:
        hub = self.the_hub
        whole = body if fault.cut is None else body[: fault.cut]
        pieces = (whole[at : at + fault.piece] for at in range(0, len(whole), fault.piece))
        for piece in pieces:
            if fault.pause_s:
                hub.is_closing.wait(fault.pause_s)
            self.wfile.write(piece)
            hub.sent[name] += len(piece)
        if fault.cut is not None:
            self.close_connection = True


class _Handler(_Answering):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.the_hub
        self.note("hub")
        is_listing = self.path.startswith("/api/")
        refusal = hub.refusal(self.headers.get("Authorization", ""), is_listing=is_listing)
        if refusal is not None:
            self.reply(refusal[0], b"{}", refusal[1])
            return
        for old, new in hub.moved.items():
            if f"/{old}/" in self.path:
                described = {"X-Linked-Etag": '"of nothing"', "X-Repo-Commit": "of nothing"}
                self.reply(307, b"", described | {"Location": self.path.replace(old, new)})
                return
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w./-]+)", self.path)
        if found is None or found[1] not in hub.versions:
            self._list()
            return
        repository, revision, name = found.groups()
        versions = hub.versions[repository]
        commit = list(versions)[-1] if revision == "main" else revision
        if commit not in versions:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        hub.requests.append((self.command, name, self.headers.get("Range", "")))
        path = versions[commit] / name
        if path.is_file():
            self._send(name, path.read_bytes(), {"X-Repo-Commit": commit})
        else:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})

    def _send(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        if not name.endswith(".safetensors"):
            self.reply_file(name, content, headers | {"ETag": f'"{git_digest(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        if not self.the_hub.store:
            self.reply_file(name, content, headers | {"ETag": f'"{digest}"'})
            return
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "ETag": '"other"'}
        self.reply(302, b"", headers | linked | {"Location": f"{self.the_hub.store}/{name}"})

    def _list(self) -> None:
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/revision/([\w.-]+)\?blobs=true", self.path)
        versions = self.the_hub.versions.get(found[1]) if found else None
        if found is None or versions is None:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        commit = list(versions)[-1] if found[2] == "main" else found[2]
        if commit not in versions:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        self.the_hub.requests.append((self.command, "digests", ""))
        listed = self.the_hub.listed or [_described(path) for path in versions[commit].iterdir()]
        text = json.dumps({"id": found[1], "sha": commit, "siblings": listed}).encode()
        fault = self.the_hub.faults.get("digests", Fault())
        self.reply(200, text, {"Content-Type": "application/json"} | fault.headers, "digests", fault)


class _StoreHandler(_Answering):
    """Where large files lie: it knows nothing of tokens."""

    def do_GET(self) -> None:
        self.note("store")
        name = self.path.lstrip("/")
        self.reply_file(name, (self.the_hub.folder / name).read_bytes(), {})


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _described(path: Path) -> dict[str, object]:
    """What the Hub tells of a file: of large ones the SHA-256, of small ones less."""
    file: dict[str, object] = {"rfilename": path.name, "size": path.stat().st_size, "blobId": "0"}
    if path.suffix == ".safetensors":
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file["lfs"] = {"sha256": digest, "size": path.stat().st_size, "pointerSize": 1}
    return file
