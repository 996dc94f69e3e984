"""Overrides an inherited hook and forgets that the marker is not inherited."""

from router_core.api import hookimpl


class Base:
    @hookimpl
    def select_single(self, workers):
        return workers[0]


class Override(Base):
    def select_single(self, workers):
        return workers[-1]
