"""The `sticky_user` policy."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from router_core.api import PolicyConfig, RoutingRequest, Worker, hookimpl, least_loaded, rendezvous


class StickyUserPolicy:
    """Keep a user's requests on one worker while it is not much busier than the idlest one."""

    class Config(PolicyConfig):
        """Options of `sticky_user`."""

        margin: Annotated[int, Field(ge=0)] = 8
        """How many more requests than the idlest worker a user's home may have in flight."""

    def __init__(self, config: Config) -> None:
        self._margin = config.margin

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the user's home, or the least loaded worker if there is no user or the home is too busy."""
        idlest = least_loaded(workers)
        if request.user is None:
            request.explain("anonymous")
            return idlest
        home = rendezvous(workers, request.user)
        if home.load - idlest.load > self._margin:
            request.explain("home_busy", home=home.url, load=home.load)
            return idlest
        request.explain("home")
        return home
