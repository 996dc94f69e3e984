from router_core.api import WorkerRole
from router_core.testing.conformance import PAIR_POOL, PolicyConformance
from router_policy_predicted_latency import PredictedLatencyPolicy


class TestConformance(PolicyConformance):
    policy_class = PredictedLatencyPolicy
    memory_options = {"max_blocks": 2_000}
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"


class TestPairConformance(PolicyConformance):
    policy_class = PredictedLatencyPolicy
    memory_options = {"max_blocks": 2_000}
    roles = PAIR_POOL  # no affinity: decode goes by load alone


class TestConformanceWithGivenConstants(PolicyConformance):
    policy_class = PredictedLatencyPolicy
    options = {
        "cache_tokens": 400_000,
        "prefill_token_s": 60e-6,
        "prefill_pair_s": 1e-9,
        "decode_sequence_s": 20e-6,
        "decode_context_token_s": 60e-9,
    }
    memory_options = {"max_blocks": 2_000}
    roles = (WorkerRole.REGULAR,)
    affinity = "prompt"
