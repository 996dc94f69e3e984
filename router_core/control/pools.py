"""Administration of pools: which policy each has, and another in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import orjson
from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router_core.config import PolicySelection
from router_core.config.wording import dotted, what_is_wrong
from router_core.contract.errors import StartupError
from router_core.control.health import PolicyStatus, ProbedPool, json_response

ReplacePolicy = Callable[[str, PolicySelection], Awaitable[None]]
"""Gives a pool another policy, or raises `StartupError` and the old one stays."""

_EXAMPLE = '{"name": "round_robin"}'


class PoolHandlers:
    """Answers `/pools` and what lies below it.

    Args:
        pools: All pools.
        policies: Returns the policy each pool has now, by the pool's name.
        replace: Gives a pool another.
    """

    def __init__(
        self, pools: Sequence[ProbedPool], policies: Callable[[], Mapping[str, PolicyStatus]], replace: ReplacePolicy
    ) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._policies = policies
        self._replace = replace

    async def list_pools(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with every pool."""
        return json_response({"pools": [self._facts(pool) for pool in self._pools.values()]})

    async def get_pool(self, request: web.Request) -> web.Response:
        """Answer with one pool."""
        pool = self._pools.get(request.match_info["name"])
        return _not_found(request) if pool is None else json_response(self._facts(pool))

    async def replace_policy(self, request: web.Request) -> web.Response:
        """Give a pool another policy: what stands under `policy` in the settings, or its name as text."""
        pool = self._pools.get(request.match_info["name"])
        if pool is None:
            return _not_found(request)
        try:
            selection = PolicySelection.model_validate(orjson.loads(await request.read()))
            if "name" not in selection.model_fields_set:  # the settings have a default, which nobody here asked for
                return _refused([f"policy.name: is missing; name the policy, such as {_EXAMPLE}"])
            await self._replace(pool.name, selection)
        except orjson.JSONDecodeError as error:
            return _refused([f"the body is not JSON ({error}); send one such as {_EXAMPLE}"])
        except ValidationError as error:
            return _refused([_sentence(each) for each in error.errors(include_url=False)])
        except StartupError as error:
            return _refused(error.problems)
        return json_response(self._facts(pool))

    def _facts(self, pool: ProbedPool) -> dict[str, object]:
        policy = self._policies()[pool.name]
        return {
            "name": pool.name,
            "policy": {"name": policy.name, "source": policy.source, "is_quarantined": policy.is_quarantined},
            "workers": [worker.url for worker in pool.workers],
        }


def _sentence(details: ErrorDetails) -> str:
    location = ("policy", *details["loc"])
    return f"{dotted(location)}: {what_is_wrong(details, location)}"


def _refused(problems: Sequence[str]) -> web.Response:
    return json_response({"error": "; ".join(problems), "code": "BAD_REQUEST"}, status=400)


def _not_found(request: web.Request) -> web.Response:
    message = f"There is no pool {request.match_info['name']}; GET /pools lists them."
    return json_response({"error": message, "code": "POOL_NOT_FOUND"}, status=404)
