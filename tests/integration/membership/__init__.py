"""Membership sources against what they watch: the real client library, a fake Kubernetes API server."""
