"""The application that answers whatever is not an inference request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aiohttp import web

from router_core.contract.worker import Worker
from router_core.control.admin_routes import ADMIN_PATHS, ENGINES, LOG_LEVEL, POOLS, WORKERS
from router_core.control.engines import EngineAsker, EngineHandlers
from router_core.control.errors import error_response, json_app
from router_core.control.health import HealthHandlers, PolicyStatus, ProbedPool, SignalFacts
from router_core.control.log_level import LogLevelHandlers
from router_core.control.metrics import RenderMetrics, metrics_handler
from router_core.control.models import FetchModels, ListModels, ModelCatalog, ModelHandlers
from router_core.control.openapi import openapi_handler
from router_core.control.operation import add_routes
from router_core.control.pools import PoolHandlers, ReplacePolicy
from router_core.control.public_routes import METRICS, MODELS, OPENAPI, PROBES
from router_core.control.workers import WhyUnused, WorkerAdmin
from router_core.fleet.registry import WorkerRegistry


def create_control_app(
    pools: Sequence[ProbedPool],
    *,
    fetch_models: FetchModels,
    listed_models: ListModels | None = None,
    render_metrics: RenderMetrics,
    is_draining: Callable[[], bool],
    policies: Callable[[], Mapping[str, PolicyStatus]] = dict,
    inference_paths: Iterable[str] = (),
    registry: WorkerRegistry,
    engines: EngineAsker,
    is_own_address: Callable[[str], bool] = lambda url: False,  # noqa: ARG005  # named as callers pass it
    why_unused: WhyUnused = lambda role, models: None,  # noqa: ARG005  # likewise
    ask_models: Callable[[Worker], None] = lambda worker: None,  # noqa: ARG005  # likewise
    health_endpoint: str = "/health",
    signals: Callable[[], Iterable[SignalFacts]] = tuple,
    log_level: LogLevelHandlers | None = None,
    error_code_header: str | None = None,
    administers: bool = True,
    replace_policy: ReplacePolicy | None = None,
    on_unknown: Callable[[int], None] = lambda status: None,  # noqa: ARG005  # likewise
) -> web.Application:
    """Return the application.

    Args:
        pools: All pools; their workers are read anew for each answer.
        fetch_models: Asks one worker for its models.
        listed_models: Returns the names clients may use; None takes them from what the workers tell.
        render_metrics: Returns the exposition and its content type.
        is_draining: Tells whether the router is on its way out.
        policies: Returns the policy each pool has now, by the pool's name.
        inference_paths: Paths whose POST is served elsewhere: any other method is answered 405 here.
        registry: Where an administrator's workers are added and removed.
        engines: Asks one worker.
        is_own_address: Tells whether a URL is the router's own: such a worker is refused.
        why_unused: Tells of workers that would never get a request: they are refused.
        ask_models: Has a worker's engine asked for its models at once.
        health_endpoint: The path on which workers are checked.
        signals: Returns the state of what decisions rest on.
        log_level: Reads and changes the level of the log.
        error_code_header: The header that tells the code of an error as well; None for none.
        administers: Whether administration is served here; else its paths say that it has an address of its own.
        replace_policy: Gives a pool another policy.
        on_unknown: Told the status of each answer to a request that no route takes, 404 or 405.
    """
    catalog = ModelCatalog(pools, fetch_models, listed=listed_models)
    app = json_app(error_code_header, on_unknown)
    inference_paths = tuple(inference_paths)

    async def close(app: web.Application) -> None:  # noqa: ARG001  # aiohttp hands it to every clean-up
        await catalog.close()

    app.on_cleanup.append(close)
    add_routes(app.router, PROBES, HealthHandlers(pools, policies, is_draining, signals))
    add_routes(app.router, MODELS, ModelHandlers(catalog))
    app.router.add_get(METRICS.route, metrics_handler(render_metrics))
    if administers:
        add_routes(app.router, WORKERS, WorkerAdmin(registry, is_own_address, why_unused, ask_models))
        add_routes(app.router, ENGINES, EngineHandlers(pools, engines, health_endpoint=health_endpoint))
        app.router.add_get(OPENAPI.route, openapi_handler(inference_paths))
        if log_level is not None:
            add_routes(app.router, LOG_LEVEL, log_level)
        if replace_policy is not None:
            add_routes(app.router, POOLS, PoolHandlers(pools, policies, replace_policy))
    else:
        for path in (*ADMIN_PATHS, OPENAPI.route):
            app.router.add_route("*", path, _administered_elsewhere)
    for path in inference_paths:
        app.router.add_post(path, _served_elsewhere)
    return app


async def _served_elsewhere(request: web.Request) -> web.StreamResponse:  # noqa: ARG001  # a handler takes the request
    """Stand in for the relay, so that aiohttp knows which method the path takes."""
    raise web.HTTPNotFound


async def _administered_elsewhere(request: web.Request) -> web.Response:
    return error_response(404, "not_found", f"{request.path} is served at the address of administration alone.")
