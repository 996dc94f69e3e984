"""Selects in a coroutine, as if the core awaited it."""

from router_core.api import hookimpl


class AsyncSelect:
    @hookimpl
    async def select_single(self, workers, request):
        return workers[0]
