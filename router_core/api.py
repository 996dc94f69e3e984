"""What a policy author imports, all of it.

    from router_core.api import PolicyConfig, hookimpl, least_loaded

    class MyPolicy:
        class Config(PolicyConfig):
            pass

        def __init__(self, config: Config) -> None: ...

        @hookimpl
        def select_single(self, workers, request):
            return least_loaded(workers)

The hooks are described in `router_core.contract.hookspecs`. Everything else under `router_core` is private to the core.
"""

from router_core.contract.hookspecs import hookimpl
from router_core.contract.membership import MembershipSource, WorkerSpec
from router_core.contract.policy import PolicyConfig, fewest_tokens, healthy, least_loaded, rendezvous
from router_core.contract.pool import PoolContext
from router_core.contract.prefix import prefix_blocks, prefix_tokens
from router_core.contract.request import Leg, LiteralPrompt, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole
from router_core.policy_kit.backlog_policy import BacklogPolicy
from router_core.policy_kit.cache_mirror import Placement
from router_core.policy_kit.prefill_backlog import PrefillBacklog
from router_core.policy_kit.prefix_index import PrefixIndex

__all__ = [
    "BacklogPolicy",
    "EngineTelemetry",
    "Leg",
    "LiteralPrompt",
    "MembershipSource",
    "OutcomeStatus",
    "Placement",
    "PolicyConfig",
    "PoolContext",
    "PrefillBacklog",
    "PrefixIndex",
    "RequestOutcome",
    "RoutingRequest",
    "Worker",
    "WorkerRole",
    "WorkerSpec",
    "fewest_tokens",
    "healthy",
    "hookimpl",
    "least_loaded",
    "prefix_blocks",
    "prefix_tokens",
    "rendezvous",
]
