"""Declares needs that do not exist."""

from router_core.api import hookimpl


class Needs:
    needs = frozenset({"prefixes", "header:X-Tenant", "gpu", 7})

    @hookimpl
    def select_single(self, workers):
        return workers[0]


class NeedsList:
    needs = ["text"]

    @hookimpl
    def select_single(self, workers):
        return workers[0]
