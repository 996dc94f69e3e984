"""Chooses pairs only, which a regular pool has none of."""

from router_core.api import hookimpl


class OnlyPair:
    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        return prefill_workers[0], decode_workers[0]
