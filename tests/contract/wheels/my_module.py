"""An in-house policy: one file next to the config, no package."""

from router_core.api import PolicyConfig, hookimpl


class MyPolicy:
    """Send everything to the last worker."""

    class Config(PolicyConfig):
        """No options."""

    def __init__(self, config: Config) -> None:
        pass

    @hookimpl
    def select_single(self, workers, request):
        """Return the last candidate."""
        return workers[-1]
