"""Starts and stops badly."""

import asyncio

from router_core.api import hookimpl


class _Select:
    @hookimpl
    def select_single(self, workers):
        return workers[0]


class RaisesAtStart(_Select):
    @hookimpl
    async def on_start(self, pool):
        raise OSError("no disk")


class NeverStarts(_Select):
    @hookimpl
    async def on_start(self):
        await asyncio.Event().wait()


class RaisesAtStop(_Select):
    @hookimpl
    def on_stop(self):
        raise OSError("no disk")


class NeverStops(_Select):
    @hookimpl
    async def on_stop(self):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return  # resists once
