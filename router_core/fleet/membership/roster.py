"""From whole lists to joins and leaves: compares what the sources say now with whom they brought in before.

For each url one of these cases holds:

1. No source lists it any more: the worker leaves, unless it is not the one a source brought.
2. A source lists it and no source brought it before: it joins, unless an administrator has added it already.
3. It is listed as before: nothing happens, the same worker object stays. If an administrator has removed it, it stays
   away until every source has dropped it once.
4. It is listed with another role, other models, labels, bootstrap port or API key: the worker leaves and another one
   joins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol

from router_core.contract.membership import Report, WorkerSpec
from router_core.contract.worker import Worker, WorkerRole
from router_core.contract.worker_url import worker_url
from router_core.fleet.worker_keys import WorkerKeys

log = logging.getLogger(__name__)

BOOTSTRAP_PORT_LABEL = "bootstrap_port"
"""The label under which a prefill worker carries its bootstrap port, when it has one."""


class RosterPool(Protocol):
    """What of a pool the roster needs; `WorkerPool` has it."""

    def add(self, worker: Worker) -> Worker:
        """Take a member in and return the worker that now stands for it."""

    def remove(self, url: str) -> Worker | None:
        """Let a member go and return it; None if there is none."""

    def get(self, url: str) -> Worker | None:
        """Return the member with this url, or None."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A worker that joined because a source listed it."""

    worker: Worker
    spec: WorkerSpec
    source: str


def worker_of(spec: WorkerSpec) -> Worker:
    """Return a worker that is not healthy yet: the health checker admits it once it has answered."""
    labels = dict(spec.labels)
    if spec.bootstrap_port is not None:
        labels[BOOTSTRAP_PORT_LABEL] = str(spec.bootstrap_port)
    return Worker(spec.url, role=spec.role, models=spec.models, labels=labels, is_healthy=False)


class Roster:
    """Keeps a pool's members in step with the lists of one or more sources.

    It touches only workers that a source brought; those an administrator added are left alone. A url that several
    sources list is one worker, as the source describes it that listed it first; when that source drops it, the next one
    takes over.

    Args:
        pool: Whose members to keep.
        keys: Where the API keys go that a source knows.
        make_worker: Builds a worker that joins.
        is_own_address: Tells whether a URL is the router's own: such a worker is skipped, its requests would go round.
        why_unused: Returns why a worker of a role, with such models, would never get a request, or None: it is skipped.
    """

    def __init__(
        self,
        pool: RosterPool,
        *,
        keys: WorkerKeys | None = None,
        make_worker: Callable[[WorkerSpec], Worker] = worker_of,
        is_own_address: Callable[[str], bool] = lambda url: False,  # noqa: ARG005  # named as callers pass it
        why_unused: Callable[[WorkerRole, Collection[str]], str | None] = lambda role, models: None,  # noqa: ARG005
    ) -> None:
        self._pool = pool
        self._keys = keys or WorkerKeys()
        self._make_worker = make_worker
        self._is_own_address = is_own_address
        self._why_unused = why_unused
        self._lists: dict[str, dict[str, WorkerSpec]] = {}
        self._members: dict[str, _Member] = {}
        self._complaints: dict[str, frozenset[str]] = {}

    def report(self, source_name: str) -> Report:
        """Return what a source calls with its whole list.

        Args:
            source_name: Tells the sources apart, in messages too; each source has its own.
        """
        self._lists.setdefault(source_name, {})

        def take(specs: tuple[WorkerSpec, ...]) -> None:
            self._take(source_name, specs)

        return take

    def _take(self, source: str, specs: tuple[WorkerSpec, ...]) -> None:
        listed = self._checked(source, specs)
        dropped = [url for url in self._lists[source] if url not in listed]
        self._lists[source] = listed
        for url in dropped:  # leaves before joins: a pod that changed its address is never there twice
            self._settle(url)
        for url in listed:
            self._settle(url)

    def _settle(self, url: str) -> None:
        member = self._members.get(url)
        claim = self._claim(url, member)
        present = self._pool.get(url)
        # 1. Nobody lists it.
        if claim is None:
            if member is not None:
                del self._members[url]
                if present is member.worker:
                    self._pool.remove(url)
                    log.info("worker %s left: %s no longer lists it", url, member.source)
            return
        source, spec = claim
        # 2. It is new.
        if member is None:
            if present is None:
                self._join(source, spec)
            return
        # 3. Nothing changed, or an administrator has decided otherwise.
        if spec == member.spec or present is not member.worker:
            self._members[url] = replace(member, source=source)
            return
        # 4. It is described in another way.
        self._pool.remove(url)
        log.info("worker %s leaves and joins again: %s describes it in another way", url, source)
        self._join(source, spec)

    def _join(self, source: str, spec: WorkerSpec) -> None:
        worker = self._pool.add(self._make_worker(spec))
        self._keys.give(spec.url, spec.api_key)  # afterwards: another registration that ends takes its key with it
        self._members[spec.url] = _Member(worker, spec, source)
        log.info("worker %s (%s) joined: listed by %s", spec.url, spec.role.value, source)

    def _claim(self, url: str, member: _Member | None) -> tuple[str, WorkerSpec] | None:
        """Return which source's word counts for a url, and that word."""
        if member is not None and (spec := self._lists[member.source].get(url)) is not None:
            return member.source, spec
        for source, listed in self._lists.items():
            if url in listed:
                return source, listed[url]
        return None

    def _checked(self, source: str, specs: tuple[WorkerSpec, ...]) -> dict[str, WorkerSpec]:
        """Return the usable specs by url; the first one counts where a url stands twice."""
        before = self._lists[source]
        listed: dict[str, WorkerSpec] = {}
        complaints: set[str] = set()
        for spec in specs:
            if before.get(spec.url) is spec and spec.url not in listed:  # long lists change a little at a time
                listed[spec.url] = spec
                continue
            try:
                url = worker_url(spec.url)
            except ValueError as error:
                complaints.add(f"{source}: a worker is skipped: {error}")
                continue
            if self._is_own_address(url):
                complaints.add(f"{source}: worker {url} is skipped: it is this router itself")
                continue
            if (reason := self._why_unused(spec.role, spec.models)) is not None:
                complaints.add(f"{source}: worker {url} is skipped: {reason}")
                continue
            if url in listed:
                complaints.add(f"{source}: worker {url} is listed more than once; the first entry counts")
                continue
            listed[url] = spec if url == spec.url else replace(spec, url=url)
        for sentence in sorted(complaints - self._complaints.get(source, frozenset())):
            log.warning("%s", sentence)
        self._complaints[source] = frozenset(complaints)
        return listed
