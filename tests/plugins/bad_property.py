"""Makes a hook a property, which pluggy passes over."""

from router_core.api import hookimpl


class Property:
    @property
    @hookimpl
    def select_single(self):
        return None
