"""Everything over HTTP that is not an inference request: probes, models, metrics, administration."""
