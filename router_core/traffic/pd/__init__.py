"""Prefill/decode disaggregation: one request on two workers. One file per protocol, found by its entry point."""
