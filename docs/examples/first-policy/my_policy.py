from router_core.api import hookimpl, least_loaded, rendezvous


class StickyUser:
    """Keep a user's requests on one worker while it is not much busier than the idlest one."""

    @hookimpl
    def select_single(self, workers, request):
        idlest = least_loaded(workers)
        if request.user is None:
            return idlest
        home = rendezvous(workers, request.user)
        return home if home.load - idlest.load <= 8 else idlest
