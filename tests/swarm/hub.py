"""A Hub on 127.0.0.1 that serves one repository from a directory, as far as its own client library asks."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
REPOSITORY = "someone/model"


@dataclass
class FakeHub:
    """`requests`: method, file, range. `refuse`: an error code. `cut` files break off once, `lie` differ."""

    folder: Path
    endpoint: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: str | None = None
    cut: set[str] = field(default_factory=set)
    lie: set[str] = field(default_factory=set)

    def fetched(self) -> set[str]:
        return {name for method, name, _ in self.requests if method == "GET"}


@contextmanager
def open_hub(folder: Path) -> Iterator[FakeHub]:
    hub = FakeHub(folder)

    class Handler(_Handler):
        the_hub = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    the_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        hub = self.the_hub
        if hub.refuse:
            self._fail(401 if hub.refuse == "RepoNotFound" else 403, hub.refuse)
            return
        found = re.fullmatch(rf"/{REPOSITORY}/resolve/([\w.-]+)/([\w./-]+)", self.path)
        if found is None:
            self._list()
            return
        revision, name = found.groups()
        if revision not in ("main", COMMIT):
            self._fail(404, "RevisionNotFound")
            return
        hub.requests.append((self.command, name, self.headers.get("Range", "")))
        path = hub.folder / name
        if path.is_file():
            self._send(name, path.read_bytes())
        else:
            self._fail(404, "EntryNotFound")

    def _list(self) -> None:
        names = [
            {"type": "file", "path": p.name, "size": 1, "oid": "0"} for p in self.the_hub.folder.iterdir()
        ]
        is_json = {"Content-Type": "application/json"}
        if f"/api/models/{REPOSITORY}/tree/" in self.path:
            self._finish(200, json.dumps(names).encode(), is_json)
        elif self.path.lower() == f"/api/models/{REPOSITORY}/revision/{COMMIT}?blobs=true":
            self.the_hub.requests.append((self.command, "digests", ""))
            self._finish(200, json.dumps(self._described()).encode(), is_json)
        else:
            self._fail(404, "RepoNotFound")

    def _described(self) -> dict[str, object]:
        """What the Hub tells of a repository: large files by their SHA-256, small ones by less."""
        files: list[dict[str, object]] = []
        for path in self.the_hub.folder.iterdir():
            file: dict[str, object] = {"rfilename": path.name, "size": path.stat().st_size, "blobId": "0"}
            if path.suffix == ".safetensors":
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                file["lfs"] = {"sha256": digest, "size": path.stat().st_size, "pointerSize": 1}
            files.append(file)
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": files}

    def _send(self, name: str, content: bytes) -> None:
        hub = self.the_hub
        is_large = name.endswith(".safetensors")
        digest = hashlib.sha256(content).hexdigest() if is_large else hashlib.sha1(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name in hub.lie:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._finish(200, content, headers, cut=name in hub.cut)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._finish(206, content[start : end + 1], headers)

    def _fail(self, status: int, code: str) -> None:
        self._finish(status, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _finish(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.the_hub.cut.clear()
                self.close_connection = True
