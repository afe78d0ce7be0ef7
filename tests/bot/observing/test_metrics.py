"""What is counted: each figure is fed where the thing happens, and no person is in any of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.measures import Stopwatch
from bot.observing.metrics import Metrics
from bot.observing.readings import Readings
from bot.observing.watched import Watched
from bot.vitals import Vitals
from bot.words import Limited, Unreachable
from storage.amounts import Rates
from tests.bot.platform import ADA
from tests.bot.world import RULES, World, open_world

NAMES = (
    "turns_total",
    "turn_seconds",
    "first_token_seconds",
    "tokens_total",
    "tokens_per_second",
    "sessions",
    "session_rebuilds_total",
    "queue_depth",
    "edits_total",
    "deliveries_retried_total",
    "quota_refusals_total",
    "holds_open",
    "gateway_latency_seconds",
    "matrix_sync_age_seconds",
    "decrypt_failures_total",
    "event_loop_lag_seconds",
    "db_write_seconds",
)
OF_FAKE = {"platform": "fake"}
OF_TURN = OF_FAKE | {"model": "fake"}


class Sessions:
    """A pool with two sessions, one of which is being rebuilt."""

    num_live = 2
    num_rebuilding = 1


def watched(world: World) -> Watched:
    platforms = {
        "discord": lambda: Vitals(True, 1.0, 60.0, latency_s=0.25),
        "matrix": lambda: Vitals(True, 12.0, 90.0, num_unreadable=3),
    }
    return Watched(world.store, world.clock, platforms, world.core, Sessions(), lambda: "")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A figure now; 0 if nobody has counted yet."""
    return metrics.registry.get_sample_value(f"murmur_{name}", labels) or 0.0


@asynccontextmanager
async def measured_world(path: Path, metrics: Metrics, rates: Rates = RULES.rates) -> AsyncIterator[World]:
    async with open_world(path, rules=replace(RULES, rates=rates), measures=metrics) as world:
        world.store.on_write = metrics.db_written
        yield world


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest_asyncio.fixture
async def world(store_path: Path, metrics: Metrics) -> AsyncIterator[World]:
    async with measured_world(store_path, metrics) as world:
        yield world


async def test_a_turn_is_counted_with_its_outcome_time_and_tokens(world: World, metrics: Metrics) -> None:
    await world.ask("What is a block?")
    answer = "You said: What is a block?"
    assert value(metrics, "turns_total", **OF_TURN, outcome="done") == 1
    assert value(metrics, "tokens_total", **OF_TURN, kind="output") == len(answer)
    assert value(metrics, "tokens_total", **OF_TURN, kind="prefill") > 0
    assert value(metrics, "turn_seconds_count", **OF_TURN, outcome="done") == 1
    took_s = value(metrics, "turn_seconds_sum", **OF_TURN, outcome="done")
    first_s = value(metrics, "first_token_seconds_sum", **OF_TURN)
    assert 0 < first_s < took_s < 60
    speed = value(metrics, "tokens_per_second_sum", **OF_TURN)
    assert 5 < speed <= 10.5  # the model takes 0.1 s for a token


async def test_a_turn_that_fails_is_counted_as_such(world: World, metrics: Metrics) -> None:
    world.brain.answer = lambda prompt: ""
    world.brain.errors = [RuntimeError("broken")]
    await world.ask("Hello")
    assert value(metrics, "turns_total", **OF_TURN, outcome="failed") == 1
    assert value(metrics, "first_token_seconds_count", **OF_TURN) == 0


async def test_edits_are_counted_and_so_are_those_that_the_platform_refuses(
    world: World, metrics: Metrics
) -> None:
    world.brain.answer = lambda prompt: "A long answer. " * 10
    world.port.failures["edit"] = [Limited(0.5)]
    await world.ask("Hello")
    assert value(metrics, "edits_total", **OF_FAKE, outcome="rate_limited") == 1
    (shown,) = world.port.messages
    assert value(metrics, "edits_total", **OF_FAKE, outcome="sent") == len(shown.history) - 1


async def test_texts_that_a_newer_one_took_the_place_of_are_counted(world: World, metrics: Metrics) -> None:
    world.brain.token_s = 0.01
    world.brain.answer = lambda prompt: "word " * 30
    await world.ask("Hello")
    sent = value(metrics, "edits_total", **OF_FAKE, outcome="sent")
    assert value(metrics, "edits_total", **OF_FAKE, outcome="coalesced") > sent


async def test_a_final_message_that_is_sent_again_is_counted(world: World, metrics: Metrics) -> None:
    world.brain.answer = lambda prompt: "Yes."
    world.port.failures["post"] = [Unreachable("gone")] * 2
    await world.ask("Hello")
    assert value(metrics, "deliveries_retried_total", **OF_FAKE) >= 1


async def test_people_who_cannot_pay_are_counted(store_path: Path, metrics: Metrics) -> None:
    poor = Rates(daily_grant=1, balance_cap=1, prefill_percent=25, least_new_tokens=8)
    async with measured_world(store_path, metrics, poor) as world:
        await world.ask("Hello")
    assert value(metrics, "quota_refusals_total", **OF_FAKE) == 1


async def test_holds_and_the_queue_are_read_when_somebody_asks(world: World, metrics: Metrics) -> None:
    readings = Readings()
    metrics.registry.register(readings)
    world.brain.answer = lambda prompt: "A long answer. " * 10
    await world.say("One")
    await world.until(lambda: world.port.texts)  # before, what is said next would belong to the question
    await world.say("Two")
    await world.until(lambda: world.core.num_waiting == 1)
    await readings.refresh(watched(world))
    assert value(metrics, "holds_open") == 1
    assert value(metrics, "queue_depth") == 1
    assert value(metrics, "turns_running") == 1
    assert value(metrics, "sessions", state="live") == 2
    assert value(metrics, "sessions", state="rebuilding") == 1
    await world.quiet()
    await readings.refresh(watched(world))
    assert (value(metrics, "holds_open"), value(metrics, "queue_depth")) == (0, 0)


async def test_every_figure_has_its_name_and_knows_no_person(world: World, metrics: Metrics) -> None:
    readings = Readings()
    metrics.registry.register(readings)
    world.brain.answer = lambda prompt: "An answer of more than one word. " * 3
    await world.ask("Hello")
    metrics.loop_lagged(0.01)
    metrics.session_rebuilt("parked")
    metrics.quota_refused("fake")
    metrics.delivery_retried("fake")
    await readings.refresh(watched(world))
    text = metrics.as_text().decode()
    assert [name for name in NAMES if f"\nmurmur_{name}" not in text] == []
    assert "murmur_gateway_latency_seconds 0.25\n" in text
    assert "murmur_matrix_sync_age_seconds 12.0\n" in text
    assert "murmur_decrypt_failures_total 3.0\n" in text
    assert 'murmur_sessions{state="parked"}' in text
    assert ADA.external_id not in text
    assert ADA.name not in text


async def test_writes_of_the_store_are_timed(world: World, metrics: Metrics) -> None:
    await world.ask("Hello")
    assert value(metrics, "db_write_seconds_count") > 3
    assert 0 < value(metrics, "db_write_seconds_sum") < 60


async def test_the_core_runs_without_anybody_who_counts(store_path: Path) -> None:
    async with open_world(store_path) as world:
        assert "You said: Hello" in await world.ask("Hello")


def test_registries_are_each_bots_own() -> None:
    one, other = Metrics(), Metrics()
    one.quota_refused("fake")
    assert value(other, "quota_refusals_total", platform="fake") == 0


@pytest.mark.parametrize(
    ("pieces_ms", "num_tokens", "speed"),
    [((), 0, None), ((100,), 1, None), ((100,), 5, None), ((100, 600), 2, 2.0), ((0, 500, 1000), 5, 4.0)],
)
def test_the_speed_of_an_answer_is_that_after_its_first_token(
    pieces_ms: tuple[int, ...], num_tokens: int, speed: float | None
) -> None:
    watch = Stopwatch()
    for now_ms in pieces_ms:
        watch.note_piece(now_ms)
    assert watch.tokens_per_second(num_tokens) == speed
