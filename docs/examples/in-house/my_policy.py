from router_core.api import PolicyConfig, hookimpl, least_loaded, rendezvous


class StickyUser:
    """Keep a user's requests on one worker while it is not much busier than the idlest one."""

    class Config(PolicyConfig):
        margin: int = 8
        """How many more requests than the idlest worker a user's home may have in flight."""

    def __init__(self, config: Config) -> None:
        self.margin = config.margin

    @hookimpl
    def select_single(self, workers, request):
        idlest = least_loaded(workers)
        if request.user is None:
            return idlest
        home = rendezvous(workers, request.user)
        return home if home.load - idlest.load <= self.margin else idlest
