"""Takes its time. The time is a number its test moves, so the test is quick."""

from router_core.api import hookimpl


class Slow:
    def __init__(self):
        self.dawdle = lambda: None

    @hookimpl
    def select_single(self, workers):
        self.dawdle()
        return workers[0]
