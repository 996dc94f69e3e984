"""Raises when it is built, or when its options are checked."""

from pydantic import field_validator

from router_core.api import PolicyConfig, hookimpl


class RaisingConstructor:
    class Config(PolicyConfig):
        margin: int = 8

    def __init__(self, config):
        raise RuntimeError("cannot reach the moon")

    @hookimpl
    def select_single(self, workers):
        return workers[0]


class RaisingValidator:
    class Config(PolicyConfig):
        margin: int = 8

        @field_validator("margin")
        @classmethod
        def broken(cls, value):
            raise ZeroDivisionError("oops")

    def __init__(self, config):
        pass

    @hookimpl
    def select_single(self, workers):
        return workers[0]
