"""Takes keyword-only parameters, which pluggy never passes."""

from router_core.api import hookimpl


class KeywordOnly:
    @hookimpl
    def select_single(self, workers, *, request):
        return workers[0]
