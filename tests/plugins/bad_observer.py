"""An observer that wants to choose."""

from router_core.api import hookimpl


class SelectingObserver:
    @hookimpl
    def select_single(self, workers):
        return workers[0]
