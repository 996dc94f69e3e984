"""Which models can be had: what the healthy workers say, as one list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from router_core.control.errors import error_response
from router_core.control.health import ProbedPool, is_available, json_response
from router_core.fleet.engine_client import EngineReplyError
from router_core.fleet.model_directory import ListedModel

log = logging.getLogger(__name__)

Model = dict[str, Any]  # Any: an engine's own fields are passed on, whatever they are
FetchModels = Callable[[str, float], Awaitable[list[Model]]]
"""Returns the models of the worker at an address, within some seconds; `EngineClient.fetch_models`."""


ListModels = Callable[[], Sequence[ListedModel]]
"""Returns the names clients may use; `ModelDirectory.listed`."""


class ModelCatalog:
    """Asks all healthy workers at once and remembers the answer for a moment.

    However many clients ask at the same time, each worker is asked once. A worker that does not answer is left out.
    """

    def __init__(
        self,
        pools: Sequence[ProbedPool],
        fetch_models: FetchModels,
        *,
        listed: ListModels | None = None,
        timeout_s: float = 2.0,
        max_age_s: float = 1.0,
    ) -> None:
        self._pools = pools
        self._fetch_models = fetch_models
        self._listed = listed
        self._timeout_s = timeout_s
        self._max_age_s = max_age_s
        self._asked: tuple[str, ...] = ()
        self._expires_at = 0.0
        self._answer: asyncio.Task[tuple[Model, ...]] | None = None

    async def models(self) -> tuple[Model, ...]:
        """Return every name some healthy worker serves, models, adapters and aliases, each once; empty without any.

        Each has the fields its engine gives it; an alias has those of its model.
        """
        loop = asyncio.get_running_loop()
        workers = (worker for pool in self._pools for worker in pool.workers if is_available(worker))
        addresses = tuple(dict.fromkeys(worker.base_url for worker in workers))
        answer = self._answer
        if answer is None or addresses != self._asked or (answer.done() and loop.time() >= self._expires_at):
            # A task of its own: the client that happened to ask first may go away without taking the answer along.
            answer = self._answer = loop.create_task(self._ask(addresses))
            self._asked = addresses
        told = await asyncio.shield(answer)
        listed = [] if self._listed is None else self._listed()
        if not listed:
            return told
        by_id = {model["id"]: model for model in told}
        return tuple(_described(model, by_id) for model in listed if model.is_available)

    def is_known(self, name: str) -> bool:
        """Return whether clients may use a name, though nobody may be there for it now."""
        return self._listed is not None and any(model.id == name for model in self._listed())

    async def close(self) -> None:
        """End what is being asked; whoever waits for it is gone or going."""
        if self._answer is not None:
            self._answer.cancel()
            await asyncio.wait([self._answer])

    async def _ask(self, addresses: tuple[str, ...]) -> tuple[Model, ...]:
        found: dict[str, Model] = {}
        for models in await asyncio.gather(*map(self._ask_one, addresses)):
            for model in models:
                found.setdefault(model["id"], model)
        self._expires_at = asyncio.get_running_loop().time() + self._max_age_s
        return tuple(found.values())

    async def _ask_one(self, address: str) -> list[Model]:
        try:
            return await self._fetch_models(address, self._timeout_s)
        except EngineReplyError as error:
            log.info("left out of the list of models: %s", error)
            return []


class ModelHandlers:
    """Answers `/v1/models` and `/v1/models/{id}`."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    async def list_models(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with all models, 503 when there is none."""
        models = await self._catalog.models()
        return json_response({"object": "list", "data": models}) if models else _no_models()

    async def get_model(self, request: web.Request) -> web.Response:
        """Answer with one model, 503 when its workers are away, 404 when it has none; ids may hold slashes."""
        models = await self._catalog.models()
        if not models:
            return _no_models()
        wanted = request.match_info["model"]
        for model in models:
            if model["id"] == wanted:
                return json_response(model)
        if self._catalog.is_known(wanted):  # as a request for it is answered
            return error_response(503, "no_available_workers", f"No worker that serves {wanted!r} is available.")
        return error_response(404, "model_not_found", f"The model {wanted!r} does not exist.")


def _described(model: ListedModel, told: Mapping[str, Model]) -> Model:
    own: Model = {"id": model.id, "object": "model", "created": 0, "owned_by": "router-core"}
    if model.alias_of is not None:
        return {**own, **told.get(model.alias_of, {}), "id": model.id, "root": model.alias_of}
    return told.get(model.id) or (own if model.parent is None else {**own, "parent": model.parent})


def _no_models() -> web.Response:
    return error_response(503, "no_available_workers", "No models available: no healthy worker tells of any.")
