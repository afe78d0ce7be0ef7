"""A real homeserver for tests: Synapse as a process, on loopback, with SQLite in a folder of its own.

It federates with nobody, asks no other machine for anything, and is killed if the test process dies.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from demo.zygote import die_with

SERVER_NAME = "localhost"
PASSWORD = "a password of tests"
START_S = 30.0
STOP_S = 15.0
REQUEST_S = 20.0
POLL_S = 0.03
PORT_TRIES = 3

RAISED = {"per_second": 10_000, "burst_count": 10_000}
RAISED_LIMITS: dict[str, Any] = {
    "rc_admin_redaction": RAISED,
    "rc_delayed_event_mgmt": RAISED,
    "rc_invites": {"per_room": RAISED, "per_user": RAISED, "per_issuer": RAISED},
    "rc_joins": {"local": RAISED, "remote": RAISED},
    "rc_joins_per_room": RAISED,
    "rc_key_requests": RAISED,
    "rc_login": {"address": RAISED, "account": RAISED, "failed_attempts": RAISED},
    "rc_media_create": RAISED,
    "rc_presence": {"per_user": RAISED},
    "rc_profile": RAISED,
    "rc_registration": RAISED,
    "rc_reports": RAISED,
    "rc_room_creation": RAISED,
    "rc_user_directory": RAISED,
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
}


class SynapseFailed(Exception):
    """It did not start, or refused a request of the tests' own."""


@dataclass(frozen=True)
class Account:
    """A registered user."""

    user_id: str
    password: str = PASSWORD

    @property
    def name(self) -> str:
        """The part before the server's name."""
        return self.user_id[1:].partition(":")[0]


class Synapse:
    """One homeserver. See `open_synapse`."""

    def __init__(self, python: Path, folder: Path, *, stock_messages: bool) -> None:
        self.log = folder / "synapse.log"
        self._command = (str(python), "-m", "synapse.app.homeserver", "-c", "homeserver.json")
        self._folder = folder
        self._limits = RAISED_LIMITS if stock_messages else RAISED_LIMITS | {"rc_message": RAISED}
        self._secret = secrets.token_hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_token = ""
        self.port = 0
        self._prepare()

    @property
    def url(self) -> str:
        """Where clients find it; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start on the data that is there; returns when clients are answered. Raises SynapseFailed."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=partial(die_with, os.getpid()),
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise SynapseFailed(f"Synapse did not start: {self._last_words()}")
            time.sleep(POLL_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; with SIGKILL, as a crash would. What does not obey is killed."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and start it again on the same data and port."""
        self.stop(number)
        self.start()

    def start_on_a_free_port(self) -> None:
        """Start for the first time. Raises SynapseFailed if it does not, on several ports."""
        for attempt in range(PORT_TRIES):
            self._choose_port()
            try:
                return self.start()
            except SynapseFailed as error:
                if attempt == PORT_TRIES - 1 or "in use" not in str(error):
                    raise
        return None

    # --- people -----------------------------------------------------------------------------------

    def register(self, name: str, *, is_limited: bool = False, is_admin: bool = False) -> Account:
        """A new user whose name begins so. Unless `is_limited`, no limit on messages holds for it."""
        account = Account(f"@{name}-{secrets.token_hex(4)}:{SERVER_NAME}")
        self._register(account, is_admin=is_admin)
        if not is_limited:
            self.override_ratelimit(account.user_id)
        return account

    def override_ratelimit(self, user_id: str, per_second: int = 0, burst: int = 0) -> None:
        """Limit what a user may send otherwise than others; zeros stand for no limit."""
        limit = {"messages_per_second": per_second, "burst_count": burst}
        self.admin("POST", f"users/{quote(user_id)}/override_ratelimit", limit)

    def remove_override(self, user_id: str) -> None:
        """Have the server's own limits hold again for a user."""
        self.admin("DELETE", f"users/{quote(user_id)}/override_ratelimit")

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask Synapse's admin API, `/_synapse/admin/v1/{path}`, as an admin. Raises SynapseFailed."""
        if not self._admin_token:
            account = Account(f"@operator-{secrets.token_hex(4)}:{SERVER_NAME}")
            self._admin_token = self._register(account, is_admin=True)["access_token"]
        return self.ask(method, f"/_synapse/admin/v1/{path}", body, token=self._admin_token)

    def ask(self, method: str, path: str, body: object = None, token: str = "") -> Any:
        """One request and its answer, both JSON. Raises SynapseFailed if it is refused."""
        status, answer = self._request(method, path, body, token)
        if status != http.HTTPStatus.OK:
            raise SynapseFailed(f"{method} {path}: {status} {answer}")
        return answer

    def _register(self, account: Account, *, is_admin: bool) -> Any:
        path = "/_synapse/admin/v1/register"
        nonce = self.ask("GET", path)["nonce"]
        words = (nonce, account.name, account.password, "admin" if is_admin else "notadmin")
        mac = hmac.new(self._secret.encode(), "\0".join(words).encode(), hashlib.sha1).hexdigest()
        asked = {"nonce": nonce, "username": account.name, "password": account.password}
        return self.ask("POST", path, asked | {"admin": is_admin, "mac": mac})

    # --- its files and its answers ----------------------------------------------------------------

    def _prepare(self) -> None:
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self._folder / "signing.key").write_text(f"ed25519 a_test {seed}\n", encoding="utf-8")
        (self._folder / "logging.json").write_text(json.dumps(LOGGING), encoding="utf-8")

    def _choose_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        # Synapse reads YAML, and JSON is that.
        (self._folder / "homeserver.json").write_text(json.dumps(self._settings()), encoding="utf-8")

    def _settings(self) -> dict[str, Any]:
        listener = {
            "bind_addresses": ["127.0.0.1"],
            "port": self.port,
            "type": "http",
            "tls": False,
            "resources": [{"names": ["client", "media"], "compress": False}],
        }
        return {
            "server_name": SERVER_NAME,
            "public_baseurl": f"{self.url}/",
            "listeners": [listener],
            "database": {"name": "sqlite3", "args": {"database": "homeserver.sqlite3"}},
            "media_store_path": "media",
            "signing_key_path": "signing.key",
            "log_config": "logging.json",
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_domain_whitelist": [],
            "enable_registration": False,
            "registration_shared_secret": self._secret,
            "macaroon_secret_key": "for tests alone",
            "form_secret": "for tests alone",
            "url_preview_enabled": False,
            "bcrypt_rounds": 4,
            "filter_timeline_limit": 10_000,
        } | self._limits

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            return self._request("GET", "/_matrix/client/versions")[0] == http.HTTPStatus.OK
        return False

    def _request(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(connection):
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers | {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def _last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]


@contextlib.contextmanager
def open_synapse(python: Path, folder: Path, *, stock_messages: bool = True) -> Iterator[Synapse]:
    """Run Synapse, installed beside `python`, on `folder` for the length of the block.

    Every limit but that on messages is raised; that one too unless `stock_messages`, with which each user may
    send ten at once and then one every five seconds. Raises SynapseFailed if it does not start.
    """
    synapse = Synapse(python, folder, stock_messages=stock_messages)
    try:
        synapse.start_on_a_free_port()
        yield synapse
    finally:
        synapse.stop()
