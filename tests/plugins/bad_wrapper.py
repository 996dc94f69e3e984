"""Wraps hooks although it is a policy."""

from router_core.api import hookimpl


class Wraps:
    @hookimpl
    def select_single(self, workers):
        return workers[0]

    @hookimpl(wrapper=True)
    def on_request_complete(self):
        return (yield)

    @hookimpl(hookwrapper=True)
    def on_first_token(self):
        yield
