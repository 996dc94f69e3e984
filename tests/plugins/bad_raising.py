"""Raises in every hook, with an error that cannot even be printed in `on_first_token`."""

from router_core.api import hookimpl


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no message for you")


class Raising:
    @hookimpl
    def select_single(self, workers):
        raise ValueError("boom")

    @hookimpl
    def select_pair(self, prefill_workers, decode_workers):
        raise ValueError("boom")

    @hookimpl
    def on_first_token(self):
        raise Unprintable

    @hookimpl
    def on_request_complete(self, worker_url):
        raise ValueError(worker_url)
