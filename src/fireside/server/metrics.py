"""What `GET /metrics` tells, in Prometheus' text format. Each app has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fireside.assistant.text import TextChunk
from fireside.engine.client import EngineState
from fireside.engine.messages import EngineStats
from fireside.server.registry import ModelRegistry

_FIRST_TOKEN_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
_PER_TOKEN_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_ENGINE_GAUGES = {
    "running": "Requests that generate now.",
    "waiting": "Requests that wait in the engine's queue.",
    "blocks_total": "Blocks of KV cache.",
    "blocks_free": "Blocks of KV cache that hold nothing.",
    "blocks_cached": "Blocks of KV cache that hold a reusable prefix and can be evicted.",
}
_ENGINE_COUNTERS = {
    "prompt_tokens": "Prompt tokens the engine took.",
    "generated_tokens": "Tokens the engine generated.",
    "cache_hit_tokens": "Prompt tokens whose keys and values came from the prefix cache.",
    "preemptions": "Requests put back into the queue because blocks ran out.",
    "steps": "Steps of the engine.",
    "forced_tokens": "Tokens that a grammar left no choice about, which skipped a forward pass.",
}
_GUESSES = {
    "drafted_tokens": "Guesses of next tokens that a forward pass checked, by where they came from.",
    "accepted_tokens": "Guesses that were right, each a forward pass saved, by where they came from.",
}


class Metrics:
    """Counts what this server does; reads the engines' own counters when it is asked."""

    def __init__(self, models: ModelRegistry) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(models))
        self.requests = Counter(
            "fireside_http_requests", "HTTP requests.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "fireside_http_request_seconds",
            "From the request's head to the answer's last byte.",
            ("route",),
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = Gauge("fireside_generations_in_progress", "Answers in the making.", registry=self.registry)
        self.prompt_tokens = Counter(
            "fireside_prompt_tokens", "Prompt tokens of finished answers.", ("model",), registry=self.registry
        )
        self.cached_tokens = Counter(
            "fireside_cached_prompt_tokens", "Those found in the prefix cache.", ("model",), registry=self.registry
        )
        self.completion_tokens = Counter(
            "fireside_completion_tokens", "Tokens of answers, unfinished ones too.", ("model",), registry=self.registry
        )
        self.first_token_seconds = Histogram(
            "fireside_time_to_first_token_seconds",
            "From the request to its first token.",
            ("model",),
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self.registry,
        )
        self.per_token_seconds = Histogram(
            "fireside_time_per_output_token_seconds",
            "Mean time between the tokens of one answer.",
            ("model",),
            buckets=_PER_TOKEN_BUCKETS,
            registry=self.registry,
        )

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    async def watch(self, model: str, chunks: AsyncGenerator[TextChunk]) -> AsyncGenerator[TextChunk]:
        """Passes an answer through and counts it. Closes `chunks` when it is closed itself."""
        start = time.perf_counter()
        first = last = 0.0
        tokens = 0
        self.in_progress.inc()
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if chunk.token_ids:
                        last = time.perf_counter()
                        first = first or last
                        tokens += len(chunk.token_ids)
                    if chunk.usage is not None:
                        tokens = chunk.usage.completion_tokens  # with the one that ended the answer and is not in it
                        self.prompt_tokens.labels(model).inc(chunk.usage.prompt_tokens)
                        self.cached_tokens.labels(model).inc(chunk.usage.cached_tokens)
                    yield chunk
        finally:
            self.in_progress.dec()
            self.completion_tokens.labels(model).inc(tokens)
            if tokens:
                self.first_token_seconds.labels(model).observe(first - start)
            if tokens > 1:
                self.per_token_seconds.labels(model).observe((last - first) / (tokens - 1))


class _EngineCollector(Collector):
    """The engines' state and the counters of their last heartbeat."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "fireside_engine_state", "1 for the state the engine is in.", None, ["model", "state"]
        )
        for model in self._models:
            for known in EngineState:
                state.add_metric([model.name, known.value], float(model.engine.state is known))
        yield state
        for kind, described in ((GaugeMetricFamily, _ENGINE_GAUGES), (CounterMetricFamily, _ENGINE_COUNTERS)):
            for field, help_text in described.items():
                family = kind(f"fireside_engine_{field}", help_text, labels=["model"])
                for model in self._models:
                    family.add_metric([model.name], _value(model.engine.stats, field))
                yield family
        for field, help_text in _GUESSES.items():
            family = CounterMetricFamily(f"fireside_engine_{field}", help_text, labels=["model", "source"])
            for model in self._models:
                for source, tokens in getattr(model.engine.stats, field).items():
                    family.add_metric([model.name, source], float(tokens))
            yield family


def _value(stats: EngineStats, field: str) -> float:
    return float(getattr(stats, field))


class MetricsMiddleware:
    """Pure ASGI. Counts requests by route and status; the outermost, so that refused ones are counted too."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500  # what an exception that gets this far becomes

        async def watching_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        finally:
            # The pattern and not the path: a label's values must be few.
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - start)
