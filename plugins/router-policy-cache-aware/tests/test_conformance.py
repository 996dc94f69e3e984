from router_core.api import WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance
from router_policy_cache_aware import CacheAwarePolicy

# The kit's short prompts all begin alike, with more of their text than the default threshold asks for.
OPTIONS = {"cache_threshold": 0.9}
SMALL = {"max_tree_size": 100_000}
BY_DEFINITION = {"check_affinity_survives_a_hot_worker": "the thresholds turn affinity off for the whole pool"}


class TestConformance(PolicyConformance):
    policy_class = CacheAwarePolicy
    options = OPTIONS
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"
    exempt = BY_DEFINITION


class TestPairConformance(PolicyConformance):
    policy_class = CacheAwarePolicy
    options = OPTIONS
    memory_options = SMALL
    roles = PAIR_POOL  # no affinity: decode goes by load alone


class TestConformanceOfTheWorkersOwnGate(PolicyConformance):
    policy_class = CacheAwarePolicy
    options = {**OPTIONS, "gate": "worker", "balance_abs_threshold": 8}
    memory_options = SMALL
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"
