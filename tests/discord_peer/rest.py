"""The REST side as a web application: who asks, may they, what do they send, what is the answer."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.discord_peer import interaction_routes, message_routes, place_routes
from tests.discord_peer.calls import Answer, Call, Handler
from tests.discord_peer.checks import MAX_FILE_BYTES
from tests.discord_peer.limits import Buckets
from tests.discord_peer.referee import Referee
from tests.discord_peer.refusals import Refusal, TooManyRequests
from tests.discord_peer.things import Attachment
from tests.discord_peer.world import World

ROUTES: dict[str, Handler] = place_routes.ROUTES | message_routes.ROUTES | interaction_routes.ROUTES
API = "/api/v10"
MAX_KEPT_CALLS = 10_000
NEEDS_NO_TOKEN = ("/webhooks/", "/interactions/")


@dataclass
class Plan:
    """What a test wants to happen to the next requests on a route."""

    route: str
    times: int
    refusal: Refusal | None = None
    loses_answer: bool = False
    delay_s: float = 0.0


class RestApi:
    """Answers requests; everything that it refuses is a Refusal."""

    def __init__(self, world: World, buckets: Buckets, referee: Referee | None) -> None:
        self._world = world
        self._buckets = buckets
        self._referee = referee
        self._plans: list[Plan] = []
        self.calls: deque[Call] = deque(maxlen=MAX_KEPT_CALLS)

    def plan(self, plan: Plan) -> None:
        """Raises ValueError if the route is none of ours: a plan that cannot come true hides a mistake."""
        if plan.route not in ROUTES:
            raise ValueError(f"no route {plan.route!r}, only {sorted(ROUTES)}")
        self._plans.append(plan)

    def application(self, gateway: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
        """Everything that listens, with the gateway's sockets at /gateway."""
        application = web.Application(client_max_size=MAX_FILE_BYTES + 1024 * 1024)
        # A path that ends with @me or @original must win over one that takes any name there.
        for route in sorted(ROUTES, key=lambda route: (route.count("{"), route)):
            method, _, path = route.partition(" ")
            application.router.add_route(method, API + path, self._handler(route))
        application.router.add_get("/gateway", gateway)
        application.router.add_get("/files/{file_id}/{name}", self._send_file)
        application.router.add_route("*", "/{anything:.*}", self._unknown_route)
        return application

    def _handler(self, route: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._answer(route, request)

        return handle

    async def _answer(self, route: str, request: web.Request) -> web.StreamResponse:
        call = Call(self._world, route, request.match_info, request.query, at_s=self._world.clock.now_s())
        self.calls.append(call)
        plan = self._next_plan(route)
        headers: dict[str, str] = {}
        try:
            await asyncio.sleep(plan.delay_s)
            headers = self._admit(call, request, plan)
            await self._read_body(call, request)
            self._check_request(call)
            call.status, body = await self._carry_out(call)
        except Refusal as refusal:
            call.status, body = refusal.status, refusal.body
            headers |= refusal.headers
        if self._referee is not None:
            self._world.findings += self._referee.answer_errors(route, call.status, body)
        if plan.loses_answer and request.transport is not None:
            request.transport.close()
        return answer(call.status, body, headers)

    def _next_plan(self, route: str) -> Plan:
        for plan in self._plans:
            if plan.route == route and plan.times > 0:
                plan.times -= 1
                return plan
        return Plan(route, 0)

    def _admit(self, call: Call, request: web.Request, plan: Plan) -> dict[str, str]:
        """Rate-limit headers for the answer. Raises Refusal if the request gets no further."""
        needs_token = not request.path.removeprefix(API).startswith(NEEDS_NO_TOKEN)
        if needs_token and request.headers.get("Authorization") != f"Bot {self._world.token}":
            raise Refusal(0)
        headers = self._buckets.take(call.route, call.params)
        if isinstance(plan.refusal, TooManyRequests) and not plan.refusal.body["global"]:
            headers["X-RateLimit-Remaining"] = "0"
            headers["X-RateLimit-Reset-After"] = str(plan.refusal.body["retry_after"])
        if plan.refusal is not None:
            plan.refusal.headers = headers | plan.refusal.headers
            raise plan.refusal
        return headers

    async def _read_body(self, call: Call, request: web.Request) -> None:
        if not request.can_read_body:
            return
        try:
            if request.content_type != "multipart/form-data":
                call.body = decoded(await request.read())
                return
            form = await request.post()
        except web.HTTPRequestEntityTooLarge as error:
            raise Refusal(40005) from error
        for name, part in form.items():
            if name == "payload_json":
                call.body = decoded(str(part))
            elif isinstance(part, web.FileField) and name.startswith("files["):
                kind = (
                    "text/plain; charset=utf-8"
                    if part.filename.endswith((".txt", ".md"))
                    else part.content_type
                )
                call.files.append(Attachment(self._world.ids.next(), part.filename, part.file.read(), kind))

    def _check_request(self, call: Call) -> None:
        if self._referee is not None:
            self._world.findings += self._referee.request_errors(call.route, dict(call.query), call.body)

    async def _carry_out(self, call: Call) -> Answer:
        try:
            return await ROUTES[call.route](call)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # discord.py would repeat a 500 for half a minute, and nobody would see why.
            self._world.findings.append(f"{call.route}: the fake cannot read this: {error!r}")
            raise Refusal(50035) from error

    async def _send_file(self, request: web.Request) -> web.Response:
        attachment = self._world.files.get(int(request.match_info["file_id"]))
        if attachment is None:
            return web.Response(status=404)
        return web.Response(body=attachment.content, headers={"Content-Type": attachment.content_type})

    async def _unknown_route(self, request: web.Request) -> web.Response:
        self._world.findings.append(f"the fake has no {request.method} {request.path}")
        return answer(404, {"message": "404: Not Found", "code": 0}, {})


def decoded(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refusal(50109) from error


def answer(status: int, body: Any, headers: dict[str, str]) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    # discord.py takes a body for JSON only if the type is exactly this one, without a charset.
    headers = {**headers, "Content-Type": "application/json"}
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers)
