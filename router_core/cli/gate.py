"""What a request passes before it is dispatched: API keys and admission, as the settings have them now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from router_core.config import AdmissionConfig, ApiKey, AuthConfig, RouterConfig, all_keys
from router_core.config.admission import NOBODY_WAITS
from router_core.contract.errors import StartupError
from router_core.observability.gate_samplers import access_sampler, admission_sampler
from router_core.observability.registry import MetricsRegistry
from router_core.relay.exchange import Exchange
from router_core.relay.server import RelayServer
from router_core.traffic.access import AccessControl
from router_core.traffic.admission import Admission
from router_core.traffic.reception import Reception
from router_core.traffic.routes import Routes

_log = logging.getLogger(__name__)
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
        self._longest_s = config.limits.request_timeout_s
        self._limits = self._limits_of(config.admission, self._keys)
        self._others: list[tuple[RelayServer, AccessControl, Handle]] = []

    @property
    def is_closed(self) -> bool:
        """Whether a key is needed."""
        return bool(self._keys)

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
            open_paths=self._auth.open_paths,
            is_routed_unknown=routes.routes_unknown,
        )
        self.admission = Admission(
            self._limits,
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
            open_paths=self._auth.open_paths,
            is_routed_unknown=lambda path: False,  # noqa: ARG005  # named as callers pass it
        )
        access.refusals = self.access.refusals  # one figure for all of them
        self._others.append((relay, access, handle))
        self._stand_in_the_way()

    def renewal(self, config: RouterConfig) -> Callable[[], None]:
        """Read and check keys and limits anew, and return what takes them; requests that were let in go on.

        Raises:
            StartupError: If they cannot be used, or would open a router that was closed.
        """
        auth, keys = config.auth, _usable(config.auth)
        if self._keys and not keys:
            raise StartupError(["auth: no key is left, which would open the router; restart it if you mean that"])
        limits = self._limits_of(config.admission, keys)

        def take() -> None:
            self._auth, self._keys, self._limits = auth, keys, limits
            self.access.set_keys(keys, forward_keys=auth.forward_keys, open_paths=auth.open_paths)
            for _, access, _ in self._others:
                access.set_keys(keys, forward_keys=True, open_paths=auth.open_paths)
            self.admission.set_limits(limits, keys)
            self._stand_in_the_way()
            _log.info("reloaded: %d API keys, limits %s", len(keys), "on" if self.admission.is_needed else "off")

        return take

    def _limits_of(self, admission: AdmissionConfig, keys: Iterable[ApiKey]) -> AdmissionConfig:
        """Return the limits as they hold: who waits longer than a request may take would be cut off unanswered."""
        idle = admission.settings_of_queue
        if idle and not admission.is_limited and not any(key.max_concurrent_requests for key in keys):
            _log.warning("admission: %s %s", idle[0], NOBODY_WAITS)  # only a file of keys could have said otherwise
        return admission.model_copy(update={"queue_timeout_s": min(admission.queue_timeout_s, self._longest_s)})

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
