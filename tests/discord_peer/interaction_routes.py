"""Routes on interactions: the first answer, and what the token allows after it."""

from dataclasses import replace

from tests.discord_peer.calls import Answer, Call, Handler
from tests.discord_peer.checks import is_private, new_version
from tests.discord_peer.interaction import (
    ACKNOWLEDGE_WITHIN_S,
    CHOICES,
    DEFERRED_MESSAGE,
    MESSAGE,
    MODAL,
    TOKEN_LIVES_S,
    UPDATE,
    Interaction,
    answers_allowed,
)
from tests.discord_peer.payloads import user_json
from tests.discord_peer.refusals import Refusal, invalid_form
from tests.discord_peer.things import EPHEMERAL, LOADING, Json, Message, Version

WEBHOOK = "/webhooks/{webhook_id}/{webhook_token}"
MAX_FOLLOWUPS_OF_USER_INSTALL = 5


async def answer_first(call: Call) -> Answer:
    """Acknowledge, once and in time."""
    interaction = call.world.interactions.get(call.params["interaction_token"])
    now_s = call.world.clock.now_s()
    if interaction is None or interaction.id != call.number("interaction_id"):
        raise Refusal(10062)
    if interaction.acknowledged_s is not None:
        raise Refusal(40060)
    if now_s - interaction.created_s > ACKNOWLEDGE_WITHIN_S:
        raise Refusal(10062)
    kind = call.fields.get("type")
    if kind not in answers_allowed(interaction.kind, interaction.source is not None):
        raise invalid_form("type", "BASE_TYPE_CHOICES", "Value is not a type that this interaction takes.")
    carry_out(call, interaction, int(kind), call.fields.get("data") or {})
    interaction.acknowledged_s = now_s
    interaction.answered_with = int(kind)
    if call.query.get("with_response", "").lower() not in ("true", "1"):
        return 204, None
    return 200, first_response(call, interaction)


def carry_out(call: Call, interaction: Interaction, kind: int, data: Json) -> None:
    if kind == MESSAGE:
        interaction.original = show(call, interaction, data)
    elif kind == DEFERRED_MESSAGE:
        interaction.original = show_waiting(call, interaction, is_private(data))
    elif kind == CHOICES:
        interaction.choices = data.get("choices", [])
    elif kind == MODAL:
        interaction.modal = data
    else:
        interaction.original = interaction.source
        if kind == UPDATE and interaction.source is not None:
            edit(call, interaction.source, data)


def first_response(call: Call, interaction: Interaction) -> Json:
    told: Json = {"interaction": interaction.response()}
    kind = interaction.answered_with
    if interaction.original is not None and kind in (MESSAGE, UPDATE):
        told["resource"] = {"type": kind, "message": call.world.shown(interaction.original)}
    return told


def show(call: Call, interaction: Interaction, body: Json) -> Message:
    """A new answer, private if the body says so."""
    version = new_version(call.world.clock.now_s(), body, call.files)
    return post(call, interaction, version, is_private(body))


def show_waiting(call: Call, interaction: Interaction, private: bool) -> Message:
    return post(call, interaction, Version(call.world.clock.now_s(), flags=LOADING), private)


def post(call: Call, interaction: Interaction, version: Version, private: bool) -> Message:
    world = call.world
    message = Message(
        world.ids.next(),
        interaction.channel,
        world.bot,
        [replace(version, flags=version.flags | (EPHEMERAL if private else 0))],
        private_to=interaction.user if private else None,
        origin=interaction.metadata(user_json(interaction.user)),
        webhook_id=world.bot.id,
    )
    return world.post(message)


def edit(call: Call, message: Message, body: Json) -> None:
    """Show something else; what waited does not wait any more, what is private stays so."""
    version = new_version(call.world.clock.now_s(), body, call.files, message.now)
    kept = message.now.flags & EPHEMERAL
    call.world.edit(message, replace(version, flags=version.flags | kept))


def acknowledged(call: Call) -> Interaction:
    """The interaction whose token is in the path. Raises Refusal if it is unknown, unused, or too old."""
    interaction = call.world.interactions.get(call.params["webhook_token"])
    if interaction is None or call.number("webhook_id") != call.world.bot.id:
        raise Refusal(10015)
    if call.world.clock.now_s() - interaction.created_s > TOKEN_LIVES_S:
        raise Refusal(50027)
    if interaction.acknowledged_s is None:
        raise Refusal(10015)
    return interaction


async def follow_up(call: Call) -> Answer:
    """One more answer. While the first one waits, this is it, as private as the waiting was."""
    interaction = acknowledged(call)
    if interaction.is_pending and interaction.original is not None:
        edit(call, interaction.original, call.fields)
        return 200, call.world.shown(interaction.original)
    if interaction.is_only_user_install and len(interaction.followups) >= MAX_FOLLOWUPS_OF_USER_INSTALL:
        raise Refusal(40094)
    message = show(call, interaction, call.fields)
    interaction.followups.append(message)
    return 200, call.world.shown(message)


def answer_in_path(call: Call) -> Message:
    """Raises Refusal if there is no such answer to this interaction any more."""
    interaction = acknowledged(call)
    if "message_id" not in call.params:
        message = interaction.original
    else:
        wanted = call.number("message_id")
        mine = [interaction.original, *interaction.followups]
        message = next((one for one in mine if one is not None and one.id == wanted), None)
    if message is None or message.is_deleted:
        raise Refusal(10008)
    return message


async def get_answer(call: Call) -> Answer:
    return 200, call.world.shown(answer_in_path(call))


async def edit_answer(call: Call) -> Answer:
    message = answer_in_path(call)
    edit(call, message, call.fields)
    return 200, call.world.shown(message)


async def delete_answer(call: Call) -> Answer:
    call.world.delete(answer_in_path(call))
    return 204, None


ROUTES: dict[str, Handler] = {
    "POST /interactions/{interaction_id}/{interaction_token}/callback": answer_first,
    f"POST {WEBHOOK}": follow_up,
    f"GET {WEBHOOK}/messages/@original": get_answer,
    f"PATCH {WEBHOOK}/messages/@original": edit_answer,
    f"DELETE {WEBHOOK}/messages/@original": delete_answer,
    f"GET {WEBHOOK}/messages/{{message_id}}": get_answer,
    f"PATCH {WEBHOOK}/messages/{{message_id}}": edit_answer,
    f"DELETE {WEBHOOK}/messages/{{message_id}}": delete_answer,
}
