"""What a request passes before it is dispatched: API keys and admission, as the settings have them now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router_core.config import ApiKey, AuthConfig, RouterConfig, all_keys
from router_core.contract.errors import StartupError
from router_core.observability.gate_samplers import access_sampler, admission_sampler
from router_core.observability.registry import MetricsRegistry
from router_core.relay.exchange import Exchange
from router_core.relay.server import RelayServer
from router_core.traffic.access import AccessControl
from router_core.traffic.admission import Admission
from router_core.traffic.reception import Reception
from router_core.traffic.routes import Routes

Handle = Callable[[Exchange], None]


class Gate:
    """Stands before the routes and before the dispatchers; costs nothing while there is nothing to check or to limit.

    Attributes:
        access: Checks the keys.
        admission: Keeps the limits.
    """

    access: AccessControl
    admission: Admission
    front: Callable[[Handle], Handle] | None = None
    """What stands before the keys on the clients' side, around whoever comes next."""

    def __init__(self, config: RouterConfig) -> None:
        """Read the keys.

        Raises:
            StartupError: If they cannot be used. No sentence shows a key.
        """
        self._auth = config.auth
        self._keys = _usable(config.auth)
        # Who waits longer than a request may take is cut off without an answer.
        timeout_s = min(config.admission.queue_timeout_s, config.limits.request_timeout_s)
        self._others: list[tuple[RelayServer, AccessControl, Handle]] = []
        self._settings = config.admission.model_copy(update={"queue_timeout_s": timeout_s})

    @property
    def is_closed(self) -> bool:
        """Whether a key is needed."""
        return bool(self._keys)

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def open(self, relay: RelayServer, reception: Reception, routes: Routes, registry: MetricsRegistry) -> None:
        """Have requests checked between `reception` and `routes`, and those for workers limited behind these."""
        self._relay = relay
        self._reception = reception
        self._routes = routes
        self._dispatch = routes.dispatch
        self.access = AccessControl(
            self._keys,
            admitted=routes.handle,
            forward_keys=self._auth.forward_keys,
            open_metrics=self._auth.open_metrics,
            is_routed_unknown=routes.routes_unknown,
        )
        self.admission = Admission(
            self._settings,
            self._keys,
            dispatch=routes.dispatch,
            loop=asyncio.get_running_loop(),
            waited=registry.histogram("admission_wait_seconds", {}),
        )
        registry.add_sampler(access_sampler(lambda: self.access.refusals))
        registry.add_sampler(admission_sampler(self.admission))
        self._stand_in_the_way()

    def guard(self, relay: RelayServer, handle: Handle) -> None:
        """Have the requests that another relay reads checked by the same keys and handed to `handle`."""
        access = AccessControl(
            self._keys,
            admitted=handle,
            forward_keys=True,
            open_metrics=self._auth.open_metrics,
            is_routed_unknown=lambda path: False,  # noqa: ARG005  # named as callers pass it
        )
        access.refusals = self.access.refusals  # one figure for all of them
        self._others.append((relay, access, handle))
        self._stand_in_the_way()

    def reload(self, auth: AuthConfig | None = None) -> None:
        """Take new keys; requests that were let in go on. `forward_keys` and `open_metrics` stay as they were.

        Args:
            auth: New settings; None reads the file of the present ones again.

        Raises:
            StartupError: If they cannot be used, or would open a router that was closed: the old keys stay then.
        """
        self.renewal(auth or self._auth)()

    def renewal(self, auth: AuthConfig) -> Callable[[], None]:
        """Read and check new keys, and return what takes them.

        Raises:
            StartupError: As `reload`.
        """
        keys = _usable(auth)
        if self._keys and not keys:
            raise StartupError(["auth: no key is left, which would open the router; restart it if you mean that"])

        def take() -> None:
            self._auth, self._keys = auth, keys
            for access in (self.access, *(access for _, access, _ in self._others)):
                access.set_keys(keys)
            self.admission.set_keys(keys)
            self._stand_in_the_way()

        return take

    def _stand_in_the_way(self) -> None:
        first = self.access.handle if self.is_closed else self._routes.handle
        self._reception.hand_on = first if self.front is None else self.front(first)
        self._relay.check_early = self.access.check_early if self.is_closed else None
        for relay, access, handle in self._others:
            relay.handle, relay.check_early = (access.handle, access.check_early) if self.is_closed else (handle, None)
        self._routes.dispatch = self.admission.admit if self.admission.is_needed else self._dispatch


def _usable(auth: AuthConfig) -> tuple[ApiKey, ...]:
    keys = all_keys(auth)
    if auth.keys_file is not None and not keys:
        raise StartupError([f"auth.keys_file: {auth.keys_file} holds no key; add one, or leave the setting out"])
    return keys
