"""What a server counts: for Prometheus, and for the status line."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_RECENT_S = 10.0


class Metrics:
    """Counters of one server.

    Attributes:
        answered: decisions since it began.
        failed: messages that were answered with an error.
        clients: how many are connected.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        to = self._registry
        self._requests = Counter("vla_requests", "Messages, by what they ask for", ["kind"], registry=to)
        self._errors = Counter("vla_errors", "Messages refused, by the kind of error", ["kind"], registry=to)
        self._decisions = Counter("vla_decisions", "Chunks that the agent gave", registry=to)
        self._latency = Histogram(
            "vla_request_seconds", "From a request's last byte to its answer", buckets=_SECONDS, registry=to
        )
        self._policy = Histogram("vla_batch_seconds", "The agent's time for a batch", buckets=_SECONDS, registry=to)
        self._sizes = Histogram("vla_batch_size", "Observations in a batch", buckets=_SIZES, registry=to)
        self._clients = Gauge("vla_clients", "Connected clients", registry=to)
        self.answered = self.failed = self.clients = 0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=10_000)  # when, latency [s], decisions

    def connected(self, change: int) -> None:
        """A client came (1) or went (-1)."""
        self.clients += change
        self._clients.set(self.clients)

    def batch(self, size: int, seconds: float) -> None:
        """The agent answered ``size`` observations at once."""
        self._sizes.observe(size)
        self._policy.observe(seconds)

    def request(self, kind: str, seconds: float, decisions: int = 0) -> None:
        """A message was answered, with so many chunks."""
        self._requests.labels(kind).inc()
        if decisions:
            self._decisions.inc(decisions)
            self._latency.observe(seconds)
            self.answered += decisions
            self._recent.append((time.monotonic(), seconds, decisions))

    def error(self, kind: str) -> None:
        """A message, or a connection, was refused."""
        self._errors.labels(kind).inc()
        self.failed += 1

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

    def line(self) -> str:
        """The last ten seconds on one line."""
        since = time.monotonic() - _RECENT_S
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        told = [f"{self.clients} client{'' if self.clients == 1 else 's'}"]
        told.append(f"{sum(one[2] for one in self._recent) / _RECENT_S:.1f} decisions/s")
        if self._recent:
            p50, p99 = np.percentile([one[1] for one in self._recent], (50, 99)) * 1000
            told.append(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        told.append(f"{self.answered} in all")
        if self.failed:
            told.append(f"{self.failed} refused")
        return " · ".join(told)
