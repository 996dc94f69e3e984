"""From the model a request names to the pool that serves it, before that pool's policy picks a worker.

Where all workers serve the same, there is nothing to choose: that the body names one of their models is seen at a
glance and nothing is parsed. Anything else is read with care.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from router_core.fleet.model_directory import ModelDirectory, ModelView, Route
from router_core.relay.exchange import Exchange
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.dispatcher import Dispatcher
from router_core.traffic.model_name import is_form, named_model, with_model

_KEY = b'"model"'
_EARLY_BYTES = 64
_MAX_AT_A_GLANCE = 8
_MAX_SHOWN = 50
_RETRY_AFTER_S = "5"


class PoolChoice:
    """Gives each request to the dispatcher of its pool, or answers why not.

    Args:
        directory: Which models there are.
        dispatchers: By the pool's name; the one for models without a pool of their own last.

    Attributes:
        unrouted: Requests that no pool was found for, by reason.
    """

    def __init__(self, directory: ModelDirectory, dispatchers: Mapping[str, Dispatcher]) -> None:
        self.unrouted = dict.fromkeys(("invalid_json", "model_required", "model_not_ready", "model_not_found"), 0)
        self._directory = directory
        self._dispatchers = dispatchers
        self._rest = tuple(dispatchers.values())[-1]
        self._view: ModelView | None = None
        self._spellings: tuple[bytes, ...] | None = None

    def dispatch(self, exchange: Exchange) -> None:
        """Take one request."""
        view = self._directory.view()
        if view is not self._view:
            self._view, self._spellings = view, _spellings(view)
        spellings = self._spellings
        if spellings is not None:
            if not spellings:
                self._rest.dispatch(exchange)
                return
            body = exchange.body
            at = body.find(_KEY, 0, _EARLY_BYTES)
            if at < 0:
                at = body.rfind(_KEY)
            # Whoever writes its key in a way that is not found is judged by the engine; the workers are all the same.
            if at < 0 or body.startswith(spellings, at):
                self._rest.dispatch(exchange)
                return
        self._choose(exchange, view)

    def _choose(self, exchange: Exchange, view: ModelView) -> None:
        prompt = BodyPrompt(exchange.head, exchange.body)
        name = named_model(exchange.head, exchange.body, prompt)
        lora = prompt.lora if view.parents else None
        if name is None:
            route = self._without_name(view, lora)
            if route is None:
                if not prompt.is_object and not is_form(exchange.head):
                    self._refuse(exchange, 400, "invalid_json", "The body must be a JSON object.")
                    return
                known = _listed(view.routes)
                message = f"Several models are served here: name one in the field `model`. Known are {known}."
                self._refuse(exchange, 400, "model_required", message)
                return
        else:
            route = view.find(name)
            if route is None:
                self._refuse_unknown(exchange, view, name)
                return
            if route.real_name not in (name, ""):
                exchange.body = with_model(exchange.head, exchange.body, route.real_name)
                prompt = BodyPrompt(exchange.head, exchange.body)
        of_lora = view.routes.get(lora) if lora is not None else None
        is_here = of_lora is not None and of_lora.pool == route.pool and of_lora.model is not None
        exchange.model = of_lora.model if of_lora is not None and is_here else route.model
        self._dispatchers[route.pool].dispatch(exchange, prompt)

    def _without_name(self, view: ModelView, lora: str | None) -> Route | None:
        """Return who serves a request that names no model, None if that is not clear."""
        if len(self._dispatchers) == 1:
            return Route(next(iter(self._dispatchers)), None, "")
        if lora is not None and lora in view.parents:
            return view.routes[lora]
        models = {route.real_name: route for name, route in view.routes.items() if name not in view.parents}
        return next(iter(models.values())) if len(models) == 1 else None

    def _refuse_unknown(self, exchange: Exchange, view: ModelView, name: str) -> None:
        shown = name if len(name) <= 200 else f"{name[:200]}..."
        if view.has_newcomers:
            message = f"No worker is known to serve the model {shown!r} yet, and some are still registering."
            self._refuse(exchange, 503, "model_not_ready", message, [("Retry-After", _RETRY_AFTER_S)])
            return
        known = _listed(view.routes)
        self._refuse(exchange, 404, "model_not_found", f"The model {shown!r} does not exist. Known are {known}.")

    def _refuse(
        self, exchange: Exchange, status: int, code: str, message: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.unrouted[code] += 1
        exchange.refuse(status, code, message, headers)


def _spellings(view: ModelView) -> tuple[bytes, ...] | None:
    """Return how bodies name the models that any worker may serve; empty if they need not, None if workers differ."""
    if not view.is_uniform or len(view.routes) > _MAX_AT_A_GLANCE:
        return None
    if view.for_the_unknown is not None:
        return ()
    names = [orjson.dumps(name) for name in view.routes]
    return tuple(_KEY + colon + name for name in names for colon in (b":", b": "))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_SHOWN} more; GET /v1/models lists them" if len(names) > _MAX_SHOWN else ""
    return ", ".join(repr(name) for name in names[:_MAX_SHOWN]) + more if names else "none"
