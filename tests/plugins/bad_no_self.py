"""Forgets self, and forgets @staticmethod."""

from router_core.api import hookimpl


class NoSelf:
    @hookimpl
    def select_single(workers, request):
        return workers[0]
