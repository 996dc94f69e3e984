"""What a simulated engine tells of itself: health, models, load, metrics."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from router_core.engine_model.prefix_cache import PrefixCache
from router_core.testing import engine_facts
from router_core.testing.engine_answers import Answers, forever
from router_core.testing.engine_ranks import Ranks
from router_core.testing.engine_state import EngineState
from router_core.testing.engine_steps import StepLoop

_SGLANG_FACTS = frozenset({"/server_info", "/get_server_info", "/model_info", "/get_model_info", "/v1/loads"})


class Management:
    """Answers what is no inference request.

    Args:
        state: The engine's.
        answers: Makes its answers.
        steps: The sequences inside.
        cache: Their prefix cache.
        ranks: Its data-parallel ranks.
        finished: Replies so far, by what ended them; a live view.
    """

    def __init__(
        self,
        state: EngineState,
        answers: Answers,
        steps: StepLoop,
        cache: PrefixCache,
        ranks: Ranks,
        finished: Mapping[str, int],
    ) -> None:
        self._state = state
        self._answers = answers
        self._steps = steps
        self._cache = cache
        self._ranks = ranks
        self._finished = finished

    async def health(self) -> web.Response:
        """Answer a health check."""
        self._state.probes += 1
        self._state.changed()
        if self._state.health_hangs:
            await forever()
        return web.Response(status=self._state.health_status, headers={"x-simulated-engine": self._state.name})

    def answer(self, method: str, path: str) -> web.Response:
        """Answer whatever else is asked."""
        state = self._state
        if state.pd == "vllm" and path in _SGLANG_FACTS:
            return self._answers.json({"detail": "Not Found"}, 404)
        if path in ("/server_info", "/get_server_info", "/model_info", "/get_model_info"):
            return self._answers.json(engine_facts.server_info(state))
        if path == "/v1/models":
            return self._answers.json(engine_facts.models(state))
        if path == "/simulated/counters":  # for tests whose engines are in another process
            return self._answers.json(state.counters())
        if path == "/version":
            return self._answers.json({"version": "0-simulated"})
        if path in ("/metrics", "/load", "/v1/loads", "/get_load") and state.metrics_status != 200:
            return self._answers.error(state.metrics_status, f"engine {state.name} was told to hide its telemetry")
        if path == "/metrics":
            text = engine_facts.metrics(state, self._steps, self._cache, self._finished)
            return web.Response(
                body=text.encode(), headers=self._answers.headers("text/plain; version=0.0.4; charset=utf-8")
            )
        if path == "/load":
            return self._answers.json({"server_load": self._steps.running + self._steps.waiting})
        if path == "/v1/loads":
            return self._answers.json(engine_facts.loads(state, self._steps, self._cache, self._ranks.running))
        if path in ("/flush_cache", "/reset_prefix_cache") and method == "POST":
            self._cache.clear()
            return web.Response(body=b"Cache flushed.\n", headers=self._answers.headers("text/plain; charset=utf-8"))
        return self._answers.json({"detail": "Not Found"}, 404)
