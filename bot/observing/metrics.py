"""What is counted and measured, for Prometheus. No label is a person, a place or a conversation."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest

from bot.measures import Edit, Ended, Measures

PREFIX = "murmur"
TURN_S = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
FIRST_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120)
TOKENS_PER_S = (0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128)
LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
WRITE_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)


class Metrics(Measures):
    """Counters and histograms in a registry of their own; `registry` takes collectors beside them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_turn = ("platform", "model")
        self._turns = self._counter("turns", "Turns that have ended", *of_turn, "outcome")
        self._turn_s = self._histogram(
            "turn_seconds", "From a question to the end of its answer", TURN_S, *of_turn, "outcome"
        )
        self._first_s = self._histogram(
            "first_token_seconds", "From a question to the first piece of its answer", FIRST_S, *of_turn
        )
        self._speed = self._histogram(
            "tokens_per_second", "Speed of an answer after its first token", TOKENS_PER_S, *of_turn
        )
        self._tokens = self._counter("tokens", "Tokens that were read and written", *of_turn, "kind")
        self._rebuilds = self._counter("session_rebuilds", "Conversations told to servers again", "cause")
        self._edits = self._counter("edits", "Changes of messages", "platform", "outcome")
        self._retries = self._counter("deliveries_retried", "Messages that were sent again", "platform")
        self._refusals = self._counter("quota_refusals", "Turns that nobody could pay for", "platform")
        self._lag_s = self._histogram("event_loop_lag_seconds", "How late the event loop is", LAG_S)
        self._write_s = self._histogram(
            "db_write_seconds", "From a wish to write until it is committed or refused", WRITE_S
        )

    def as_text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return generate_latest(self.registry)

    def turn_ended(self, ended: Ended) -> None:
        """See bot.measures.Measures."""
        of_turn = (ended.platform, ended.model)
        self._turns.labels(*of_turn, ended.outcome).inc()
        self._turn_s.labels(*of_turn, ended.outcome).observe(ended.seconds)
        if ended.first_token_s is not None:
            self._first_s.labels(*of_turn).observe(ended.first_token_s)
        if ended.tokens_per_second is not None:
            self._speed.labels(*of_turn).observe(ended.tokens_per_second)
        self._tokens.labels(*of_turn, "prefill").inc(ended.prefill_tokens)
        self._tokens.labels(*of_turn, "output").inc(ended.output_tokens)

    def edit(self, platform: str, outcome: Edit) -> None:
        """See bot.measures.Measures."""
        self._edits.labels(platform, outcome).inc()

    def delivery_retried(self, platform: str) -> None:
        """See bot.measures.Measures."""
        self._retries.labels(platform).inc()

    def quota_refused(self, platform: str) -> None:
        """See bot.measures.Measures."""
        self._refusals.labels(platform).inc()

    def session_rebuilt(self, cause: Literal["parked", "lost"]) -> None:
        """See bot.measures.Measures."""
        self._rebuilds.labels(cause).inc()

    def loop_lagged(self, seconds: float) -> None:
        """The event loop came so much too late."""
        self._lag_s.observe(seconds)

    def db_written(self, seconds: float) -> None:
        """The store took so long to write; called from its thread."""
        self._write_s.observe(seconds)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, about, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)
