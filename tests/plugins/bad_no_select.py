"""A policy that chooses nothing."""

from router_core.api import hookimpl


class NoSelect:
    @hookimpl
    def on_request_complete(self, worker_url):
        pass
