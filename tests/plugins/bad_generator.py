"""Yields the worker instead of returning it."""

from router_core.api import hookimpl


class Generator:
    @hookimpl
    def select_single(self, workers):
        yield workers[0]

    @hookimpl
    async def on_start(self, pool):
        yield
