"""Who may ask for what: API keys, checked before anything else is done with a request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from router_core.config.auth import ApiKey, Scope
from router_core.relay.exchange import Exchange
from router_core.relay.request_head import BadRequestError, RequestHead
from router_core.traffic.paths import INFERENCE_PATHS
from router_core.traffic.stored_responses import PREFIX as STORED_RESPONSES

PROBES = frozenset({b"/health", b"/liveness", b"/readiness"})
"""Paths that are open to everybody, as long as they are asked for nothing more by a query."""

_METRICS = b"/metrics"
_MODELS = b"/v1/models"
_READING = (b"GET", b"HEAD")
_CREDENTIALS = (b"authorization", b"x-api-key")
_REALM = 'Bearer realm="router-core"'


class KeyHolder(NamedTuple):
    """What the router knows of a key: never its text.

    Attributes:
        name: Whose key it is.
        scopes: What it opens.
    """

    name: str
    scopes: frozenset[Scope]


class _Pass(NamedTuple):
    """What was found out of a head; holds good for all requests with the same head, until the keys change."""

    keys: object
    principal: str | None
    head: RequestHead


class AccessControl:
    """Lets requests through that have a key for what they ask, and answers the others.

    Keys are known by their SHA-256 only. A digest is looked up in a dict: how long that takes tells nothing of a key,
    for who guesses cannot choose digests. What was found out of a head is remembered with the head, which serves all
    requests of a connection that look alike, so a kept connection is checked once.

    Args:
        keys: All keys there are.
        admitted: Takes the requests that may pass.
        forward_keys: Leave the key that opened the router in the head that goes to the worker.
        open_paths: What everybody may read, beside the probes.
        is_routed_unknown: Tells whether a path that is none of the known ones goes to a worker.

    Attributes:
        refusals: Requests that were turned away, by reason.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey],
        *,
        admitted: Callable[[Exchange], None],
        forward_keys: bool,
        open_paths: Iterable[str],
        is_routed_unknown: Callable[[bytes], bool],
    ) -> None:
        self.refusals = dict.fromkeys(("missing_key", "invalid_key", "missing_scope"), 0)
        self._admitted = admitted
        self._is_routed_unknown = is_routed_unknown
        self.set_keys(keys, forward_keys=forward_keys, open_paths=open_paths)

    def set_keys(self, keys: Iterable[ApiKey], *, forward_keys: bool, open_paths: Iterable[str]) -> None:
        """Take these keys and rules from now on; requests that were let in go on."""
        self._forward_keys = forward_keys
        self._open_paths = frozenset(path.encode() for path in open_paths)
        self._holders: Mapping[bytes, KeyHolder] = {
            key.digest: KeyHolder(key.name, frozenset(key.scopes) | _implied(key.scopes)) for key in keys
        }

    def handle(self, exchange: Exchange) -> None:
        """Let a request through, or answer why not."""
        head = exchange.head
        found = head.note
        if not isinstance(found, _Pass) or found.keys is not self._holders:
            try:
                found = head.note = self._check(head)
            except BadRequestError as refusal:
                exchange.refuse(refusal.status, refusal.code, str(refusal), refusal.headers)
                return
        exchange.principal = found.principal
        exchange.head = found.head
        self._admitted(exchange)

    def check_early(self, head: RequestHead) -> None:
        """Look at a head whose body is still to come: nobody without a key may have the router keep a large one.

        Raises:
            BadRequestError: If the request may not pass.
        """
        if not isinstance(head.note, _Pass) or head.note.keys is not self._holders:
            head.note = self._check(head)

    def _check(self, head: RequestHead) -> _Pass:
        holders = self._holders
        # 1. A query may ask a probe for details, which are not for everybody.
        # 2. What is open is so for reading alone.
        if (head.path in PROBES and head.target == head.path) or (
            head.path in self._open_paths and head.method in _READING
        ):
            return _Pass(holders, None, head)
        holder, carriers = self._holder_of(head)
        if holder is None:
            raise self._refusal("invalid_key" if carriers else "missing_key")
        needed = self._scope_for(head.path)
        if needed is not None and needed not in holder.scopes:
            raise self._lacking(holder, needed)
        return _Pass(holders, holder.name, head if self._forward_keys else head.changed(dict.fromkeys(carriers)))

    def _holder_of(self, head: RequestHead) -> tuple[KeyHolder | None, tuple[bytes, ...]]:
        """Return whose key a head carries and in which fields; of an unknown one, None and where it was looked for."""
        given = [(name, _key_in(name, head.fields[name])) for name in _CREDENTIALS if name in head.fields]
        known = [(holder, name) for name, key in given if (holder := self._holders.get(hashlib.sha256(key).digest()))]
        if not known:
            return None, tuple(name for name, _ in given)
        return known[0][0], tuple(name for _, name in known)

    def _scope_for(self, path: bytes) -> Scope | None:
        """Return the scope that a path needs, None when any key will do. An unknown path needs the most."""
        if path in INFERENCE_PATHS or path.startswith(STORED_RESPONSES):
            return "inference"
        if path == _MODELS or path.startswith(_MODELS + b"/"):
            return None
        if path == _METRICS:
            return "metrics"
        return "inference" if self._is_routed_unknown(path) else "admin"

    def _refusal(self, reason: str) -> BadRequestError:
        self._count(reason)
        if reason == "missing_key":
            message = "An API key is missing: send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'."
            challenge = _REALM
        else:
            message, challenge = "This API key is not known here.", f'{_REALM}, error="invalid_token"'
        return BadRequestError(401, message, code="invalid_api_key", headers=[("WWW-Authenticate", challenge)])

    def _lacking(self, holder: KeyHolder, needed: Scope) -> BadRequestError:
        self._count("missing_scope")
        message = f"The API key {holder.name!r} lacks the scope {needed!r}."
        if not any(needed in other.scopes for other in self._holders.values()):
            message += " No key of this router has it: the operator has to add one."
        challenge = f'{_REALM}, error="insufficient_scope", scope="{needed}"'
        return BadRequestError(403, message, code="insufficient_scope", headers=[("WWW-Authenticate", challenge)])

    def _count(self, reason: str) -> None:
        self.refusals[reason] += 1


def _implied(scopes: Iterable[Scope]) -> frozenset[Scope]:
    return frozenset({"metrics"}) if "admin" in scopes else frozenset()


def _key_in(name: bytes, value: bytes) -> bytes:
    if name == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return b""
    return value.strip()
