"""A homeserver that does not log the bot in: the operator hears what to do."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.on_matrix.account import NotLoggedIn, log_in

USER = "@murmur:localhost"


def refusing(code: str, status: int) -> TestServer:
    """A homeserver that answers every attempt with this error."""

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"errcode": code, "error": "no"}, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    return TestServer(app)


@pytest.mark.parametrize(
    ("code", "status", "remedy"),
    [
        ("M_FORBIDDEN", 403, r"\('M_FORBIDDEN'\): check \[matrix\] user and the password; .* single sign-on"),
        ("M_UNKNOWN", 400, r"\('M_UNKNOWN'\): check \[matrix\] user and the password; .* needs one$"),
        ("M_LIMIT_EXCEEDED", 429, "wait some minutes and try again$"),
    ],
)
async def test_a_refusal_names_a_remedy_in_one_sentence(
    code: str, status: int, remedy: str, tmp_path: Path
) -> None:
    async with refusing(code, status) as server:
        with pytest.raises(NotLoggedIn, match=remedy) as refused:
            await log_in(str(server.make_url("")), USER, "a password", tmp_path / "matrix")
    assert USER in str(refused.value)
    assert "\n" not in str(refused.value)
