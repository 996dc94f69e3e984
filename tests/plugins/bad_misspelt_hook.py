"""Marks hooks that do not exist."""

from router_core.api import hookimpl


class MisspeltHook:
    @hookimpl
    def select_singel(self, workers):
        return workers[0]

    @hookimpl
    def on_request_completed(self, worker_url, success):
        pass

    @hookimpl
    def zzz(self):
        pass
