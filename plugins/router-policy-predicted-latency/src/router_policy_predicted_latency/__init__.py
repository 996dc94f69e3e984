"""Send a request where it, and those after it, are predicted to wait least."""

from router_policy_predicted_latency.policy import PredictedLatencyPolicy

__all__ = ["PredictedLatencyPolicy"]
