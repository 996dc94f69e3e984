"""Nests a Config of the wrong sort, or a constructor that cannot take it."""

from dataclasses import dataclass

from router_core.api import PolicyConfig, hookimpl


class _Select:
    @hookimpl
    def select_single(self, workers):
        return workers[0]


class WrongConfig(_Select):
    @dataclass
    class Config:
        margin: int = 8


class TakesNothing(_Select):
    class Config(PolicyConfig):
        margin: int = 8


class WantsMore(_Select):
    class Config(PolicyConfig):
        margin: int = 8

    def __init__(self, config, clock):
        pass


class WantsConfig(_Select):
    def __init__(self, config):
        pass
