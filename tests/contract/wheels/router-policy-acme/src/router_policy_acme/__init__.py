"""A third party's whole policy: every request to the worker at one position."""

from router_core.api import PolicyConfig, hookimpl


class AcmePolicy:
    """Send everything to the n-th worker: no other policy, and no fallback, would."""

    class Config(PolicyConfig):
        """Options of `acme`."""

        position: int = 0
        """Place of the favoured worker among the candidates, from 0."""

    def __init__(self, config: Config) -> None:
        self.position = config.position

    @hookimpl
    def select_single(self, workers, request):
        """Return the worker at the position."""
        return workers[self.position]
