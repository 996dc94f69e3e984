"""Asks for arguments no hook offers."""

from router_core.api import hookimpl


class UnknownArgument:
    @hookimpl
    def select_single(self, worker, request, temperature):
        return worker[0]

    @hookimpl
    def on_stop(self, pool):
        pass
