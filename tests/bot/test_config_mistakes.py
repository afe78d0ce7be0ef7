"""Each kind of mistake in a configuration has its sentence."""

from pathlib import Path

import pytest

from tests.bot.configs import DISCORD, ENVIRONMENT, MATRIX, PEER, mistake

SENTENCES = {
    "a mistyped setting": (
        "[discord]\ntokn = 'x'",
        "[discord] tokn is not a setting; did you mean token_env?",
    ),
    "a setting like no other": (
        "[ops]\nqqq = 1",
        "[ops] qqq is not a setting; config.example.toml names all that are",
    ),
    "a setting of another section": (
        "[storage]\nretention_days = 3",
        "[storage] retention_days is not a setting here; it belongs to [privacy]",
    ),
    "a setting of two other sections": (
        "[bot]\nenabled = true",
        "[bot] enabled is not a setting here; it belongs to [discord] or [matrix]",
    ),
    "a setting with signs that a terminal obeys": (
        '[ops]\n"\\u001b[2J" = 1',
        '[ops] "\\u001b[2J" is not a setting; config.example.toml names all that are',
    ),
    "a mistyped section": ("[dicsord]\n", "[dicsord] is not a section; did you mean [discord]?"),
    "a section like no other": (
        "[xyzzy]\n",
        "[xyzzy] is not a section; there are [bot], [discord], [matrix], [swarm], [limits], [quota], "
        "[privacy], [storage] and [ops]",
    ),
    "a setting before all sections": (
        "retention_days = 3",
        "retention_days stands outside of a section; it belongs to [privacy]",
    ),
    "something else before all sections": (
        "xyzzy = 3",
        "xyzzy stands outside of a section; each setting stands in a section, as in config.example.toml",
    ),
    "a section that is none": (
        "discord = true",
        "[discord] must be a section: a line with [discord], once, and its settings below",
    ),
    "a section twice": (
        "[[ops]]\n[[ops]]",
        "[ops] must be a section: a line with [ops], once, and its settings below",
    ),
    "a section in a section": (
        "[bot.name]\nfirst = 'x'",
        "[bot] name must be a name of 1 to 32 letters, in one line and without backquotes, not a section",
    ),
    "text for a number": (
        "[limits]\nrunning = '5'",
        '[limits] running must be a whole number from 1 to 10000, not "5"',
    ),
    "a number that is too small": (
        "[limits]\nrunning = 0",
        "[limits] running must be a whole number from 1 to 10000, not 0",
    ),
    "a number that cannot be written": (
        f"[limits]\nrunning = 0x{'f' * 9000}",
        "[limits] running must be a whole number from 1 to 10000, not so large a number",
    ),
    "a fraction for a whole number": (
        "[limits]\nrunning = 1.5",
        "[limits] running must be a whole number from 1 to 10000, not 1.5",
    ),
    "a truth for a number": (
        "[limits]\nrunning = true",
        "[limits] running must be a whole number from 1 to 10000, not true",
    ),
    "a number for a truth": (
        "[bot]\nstreaming = 1",
        "[bot] streaming must be true or false, not 1",
    ),
    "no number": (
        "[bot]\ntemperature = nan",
        "[bot] temperature must be a number from 0 to 2, not nan",
    ),
    "an endless number": (
        "[bot]\ntemperature = -inf",
        "[bot] temperature must be a number from 0 to 2, not so large a number",
    ),
    "a port that is none": (
        "[ops]\nmetrics_port = 65536",
        "[ops] metrics_port must be a whole number from 0 to 65535, not 65536",
    ),
    "a percentage above all": (
        "[quota]\nprefill_percent = 101",
        "[quota] prefill_percent must be a whole number from 0 to 100, not 101",
    ),
    "a date for a duration": (
        "[ops]\ndrain_seconds = 10:00:00",
        "[ops] drain_seconds must be a whole number from 0 to 3600, not a date or time",
    ),
    "none of the choices": (
        "[ops]\nlog_level = 'loud'",
        '[ops] log_level must be "DEBUG", "INFO", "WARNING" or "ERROR", not "loud"',
    ),
    "an empty path": (
        "[storage]\npath = ''",
        '[storage] path must be the path of a file: "name", not ""',
    ),
    "a long path for a socket": (
        f"[ops]\ncontrol_socket = '{'x' * 101}'",
        "[ops] control_socket must be the path of a file, of at most 100 bytes: systems take no more for a "
        f'socket, not "{"x" * 60}..."',
    ),
    "text that is too long": (
        f"[bot]\npersona = '{'x' * 8001}'",
        f'[bot] persona must be text in quotes, of at most 8000 letters, not "{"x" * 60}..."',
    ),
    "no text": (
        "[privacy]\nnotice = ''",
        '[privacy] notice must be text in quotes, of 1 to 1500 letters, not ""',
    ),
    "a letter as prefix": (
        "[bot]\ncommand_prefix = 'a'",
        '[bot] command_prefix must be 1 to 3 punctuation marks, such as "!", not "a"',
    ),
    "text for a list": (
        "[discord]\nallowed_users = '5'",
        "[discord] allowed_users must be a list of at most 1000 items, each an id of Discord: a whole "
        'number, without quotes, not "5"',
    ),
    "a wrong item": (
        "[discord]\nallowed_users = [1, 2, 'x']",
        '[discord] allowed_users: item 3 must be an id of Discord: a whole number, without quotes, not "x"',
    ),
    "a list that is too long": (
        f"[swarm]\nmodels = {['m'] * 17}",
        '[swarm] models must be a list of at most 16 items, each a model of the Hub ("owner/model") or a '
        'folder ("./my-model"), not a list of 17 items',
    ),
    "a peer without a name": (
        "[swarm]\ninitial_peers = ['/ip4/127.0.0.1/tcp/1']",
        "[swarm] initial_peers: item 1 must be the address of a peer, such as "
        '/ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..., not "/ip4/127.0.0.1/tcp/1"',
    ),
    "a homeserver without a scheme": (
        "[matrix]\nhomeserver = 'example.org'",
        '[matrix] homeserver must be the address of a homeserver, such as "https://matrix.example.org", '
        'not "example.org"',
    ),
    "a user without a server": (
        "[matrix]\nuser = 'ada'",
        '[matrix] user must be a user of Matrix, such as "@murmur:example.org", not "ada"',
    ),
    "an inviter that is none": (
        "[matrix]\nallowed_inviters = ['a b']",
        '[matrix] allowed_inviters: item 1 must be a user ("@ada:example.org"), a server ("example.org") or '
        'everybody ("*"), not "a b"',
    ),
    "an admin that is none": (
        "[bot]\nadmins = ['ada']",
        '[bot] admins: item 1 must be a user of Matrix ("@ada:example.org") or an id of Discord '
        '("123456789012345678"), in quotes, not "ada"',
    ),
    "a cap below the grant": (
        "[quota]\nbalance_cap = 5",
        "[quota] balance_cap must be daily_grant (20000) or more, not 5",
    ),
    "no room for a question": (
        "[limits]\ncontext_tokens = 512",
        "[limits] context_tokens must be 0 or more than max_new_tokens (512), not 512",
    ),
    "two things at one path": (
        "[storage]\npath = 'bot.key'",
        "[swarm] identity_file and [storage] path must not be the same path",
    ),
    "a platform without a model": (
        DISCORD.replace('"./demo/model"', ""),
        '[swarm] models is needed once a platform is enabled: models = ["owner/model"]',
    ),
    "a platform without a swarm": (
        DISCORD.replace(f'"{PEER}"', ""),
        "[swarm] initial_peers is needed once a platform is enabled: initial_peers = "
        '["/ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."]',
    ),
    "Matrix without a server": (
        MATRIX.replace("http://localhost:8008", ""),
        '[matrix] homeserver is needed once [matrix] is enabled: homeserver = "https://matrix.example.org"',
    ),
    "Matrix without a user": (
        MATRIX.replace("@murmur:localhost", ""),
        '[matrix] user is needed once [matrix] is enabled: user = "@murmur:example.org"',
    ),
}


@pytest.mark.parametrize(("text", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_behaviour_30_each_mistake_has_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert mistake(tmp_path, text, ENVIRONMENT) == sentence
