"""Numbers about the service for Prometheus, in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .service import Service

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts requests as they end and batches as they are encoded; reads the rest when it is asked."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "deephash_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "deephash_request_seconds", "From a request's head to the end of its answer.", ("method", "route"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "deephash_encode_batch_images", "Images encoded together.", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )  # fmt: skip
        # Finding the counter of some labels takes longer than counting.
        self._requests_of = cache(lambda method, route, status: self._requests.labels(method, route, str(status)))
        self._seconds_of = cache(lambda method, route: self._seconds.labels(method, route))

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one answer."""
        self._requests_of(method, route, status).inc()
        self._seconds_of(method, route).observe(seconds)

    def count_batch(self, n_images: int) -> None:
        """Counts one encoded batch."""
        self._batches.observe(n_images)

    def watch(self, service: Service) -> None:
        """Adds what is read from the service when it is asked."""
        self.registry.register(_Gauges(service))

    def text(self) -> bytes:
        """Returns everything in the text format of Prometheus."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        jobs = [job.state for job in service.jobs.all()]
        for name, text, value in (
            ("deephash_images", "Images in the index.", len(service.stores.quick)),
            ("deephash_ready", "Whether the model is loaded.", int(service.encoder.is_ready)),
            ("deephash_encode_waiting_images", "Images that wait to be encoded.", service.encoder.waiting),
            ("deephash_decode_waiting_images", "Images that wait to be decoded or are.", service.pool.waiting),
            ("deephash_thumbnails_cached_hits", "Thumbnails answered from memory.", service.thumbnails.n_hits),
            ("deephash_thumbnails_made", "Thumbnails made.", service.thumbnails.n_made),
            ("deephash_jobs_running", "Jobs at work.", jobs.count("running")),
            ("deephash_jobs_queued", "Jobs that wait.", jobs.count("queued")),
        ):
            yield GaugeMetricFamily(name, text, value=value)
