"""What is looked up when Prometheus asks, from those who know it: nobody has to keep it up to date."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from bot.observing.metrics import PREFIX
from bot.observing.watched import Watched
from bot.vitals import Vitals
from storage.errors import StorageError
from storage.figures import Figures, figures


class Readings(Collector):
    """Gauges of one bot. `refresh` before they are collected: the store can only be awaited."""

    def __init__(self) -> None:
        self._watched: Watched | None = None
        self._figures: Figures | None = None

    async def refresh(self, watched: Watched | None) -> None:
        """Look into the store; what it does not tell is left out."""
        self._watched, self._figures = watched, None
        if watched is None:
            return
        try:
            self._figures = await watched.store.read(figures, watched.clock.now_ms())
        except StorageError:
            return

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """See prometheus_client."""
        if self._watched is None:
            return
        turns, sessions = self._watched.turns, self._watched.sessions
        yield _gauge("queue_depth", "Turns that wait", turns.num_waiting)
        yield _gauge("turns_running", "Turns that run", turns.num_running)
        live, rebuilding = sessions.num_live, sessions.num_rebuilding
        by_state: dict[str, float] = {"live": live, "rebuilding": rebuilding}
        if self._figures is not None:
            by_state["parked"] = max(0, self._figures.kept_sessions - live)
            yield _gauge("holds_open", "Turns that credits are held for", self._figures.holds)
        yield _labelled("sessions", "Sessions by state", "state", by_state)
        yield from _of_platforms({name: vitals() for name, vitals in self._watched.platforms.items()})


def _of_platforms(vitals: dict[str, Vitals]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    is_up = {name: float(not each.trouble()) for name, each in vitals.items()}
    yield _labelled("platform_connected", "1 if a platform is heard", "platform", is_up)
    if "discord" in vitals and (latency_s := vitals["discord"].latency_s) is not None:
        yield _gauge("gateway_latency_seconds", "Discord's answer to the last heartbeat", latency_s)
    if "matrix" not in vitals:
        return
    if (age_s := vitals["matrix"].heard_age_s) is not None:
        yield _gauge("matrix_sync_age_seconds", "Since the homeserver has answered last", age_s)
    failures = CounterMetricFamily(
        f"{PREFIX}_decrypt_failures", "Messages that could not be decrypted when they came"
    )
    failures.add_metric([], vitals["matrix"].num_unreadable)
    yield failures


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", about, value=value)


def _labelled(name: str, about: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
