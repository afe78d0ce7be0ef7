"""The homeserver of the tests: users, limits, restarts, and no trace afterwards."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.processes import wait_until
from tests.matrix_peer.synapse import Account, Synapse, SynapseFailed, open_synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

STOCK_BURST = 10


def log_in(synapse: Synapse, account: Account) -> str:
    """An access token."""
    user = {"type": "m.id.user", "user": account.user_id}
    asked = {"type": "m.login.password", "identifier": user, "password": account.password}
    return str(synapse.ask("POST", "/_matrix/client/v3/login", asked)["access_token"])


def send_until_refused(synapse: Synapse, token: str, at_most: int) -> int:
    """How many messages the server takes at once."""
    room = synapse.ask("POST", "/_matrix/client/v3/createRoom", {}, token)["room_id"]
    for number in range(at_most):
        path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}"
        try:
            synapse.ask("PUT", path, {"msgtype": "m.text", "body": "x"}, token)
        except SynapseFailed as error:
            if ": 429 " not in str(error):
                raise
            return number
    return at_most


def test_people_are_new_each_time_and_can_log_in(synapse: Synapse) -> None:
    first, second = synapse.register("anna"), synapse.register("anna")
    assert first.user_id != second.user_id
    token = log_in(synapse, first)
    assert synapse.ask("GET", "/_matrix/client/v3/account/whoami", None, token)["user_id"] == first.user_id


def test_the_stock_limit_holds_for_those_who_are_limited_alone(synapse: Synapse) -> None:
    free, limited = synapse.register("free"), synapse.register("limited", is_limited=True)
    assert send_until_refused(synapse, log_in(synapse, free), 3 * STOCK_BURST) == 3 * STOCK_BURST
    token = log_in(synapse, limited)
    assert send_until_refused(synapse, token, 3 * STOCK_BURST) <= STOCK_BURST
    synapse.override_ratelimit(limited.user_id)
    assert send_until_refused(synapse, token, 3 * STOCK_BURST) == 3 * STOCK_BURST
    synapse.remove_override(limited.user_id)
    with pytest.raises(SynapseFailed, match="429"):  # a new room draws on the same limit
        send_until_refused(synapse, token, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_everything_is_still_there(own_synapse: Synapse, number: signal.Signals) -> None:
    token = log_in(own_synapse, own_synapse.register("anna"))
    room = own_synapse.ask("POST", "/_matrix/client/v3/createRoom", {}, token)["room_id"]
    url = own_synapse.url
    own_synapse.restart(number)
    assert own_synapse.url == url
    assert own_synapse.ask("GET", "/_matrix/client/v3/joined_rooms", None, token) == {"joined_rooms": [room]}


def test_every_limit_can_be_raised(synapse_python: Path, tmp_path: Path) -> None:
    with open_synapse(synapse_python, tmp_path, stock_messages=False) as synapse:
        token = log_in(synapse, synapse.register("limited", is_limited=True))
        assert send_until_refused(synapse, token, 3 * STOCK_BURST) == 3 * STOCK_BURST
        pid = synapse.pid
    assert synapse.pid is None
    assert not Path(f"/proc/{pid}").exists()


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody asks about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


DIES = """
import os, pathlib, signal, sys
from tests.matrix_peer.synapse import open_synapse
with open_synapse(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])) as synapse:
    print(synapse.pid, synapse.port, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_dies_with_the_test_process(synapse_python: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIES, str(synapse_python), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    pid, _, _ = done.stdout.partition(" ")
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: has_ended(int(pid)), 10, "Synapse outlived the test process")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(SynapseFailed, match="No module named 'synapse'"),
        open_synapse(Path(sys.executable), tmp_path),
    ):
        pass
