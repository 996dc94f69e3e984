"""A Kubernetes API server as far as a watcher sees it: LIST in pages, WATCH as a stream of JSON lines, and its faults.

It keeps a history of changes with one version counter, so that a watch replays what happened after the version it
begins at, and a version from before `compact()` is gone. Selectors are applied here, as an API server does: an object
whose labels cease to match is DELETED for that watcher.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from aiohttp import web

from .selectors import Matcher, parse_selector

TOKEN = "a-service-account-token"
_KINDS = {"pods": ("v1", "Pod"), "endpointslices": ("discovery.k8s.io/v1", "EndpointSlice")}
_Object = dict[str, Any]


class Asked(NamedTuple):
    """One request that arrived."""

    verb: Literal["list", "watch"]
    resource: str
    namespace: str | None
    query: dict[str, str]


class _Past(NamedTuple):
    """One change: what an object was and what it became."""

    version: int
    resource: str
    old: _Object | None
    new: _Object | None


@dataclass(eq=False)
class _Watcher:
    """One watch under way."""

    resource: str
    namespace: str | None
    matches: Matcher
    wants_bookmarks: bool
    transport: asyncio.BaseTransport
    lines: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def offer(self, change: _Past) -> None:
        """Send the event this watcher sees of a change, if any."""
        if change.resource != self.resource:
            return
        old = change.old if change.old is not None and self._sees(change.old) else None
        new = change.new if change.new is not None and self._sees(change.new) else None
        if new is not None:
            self.send("ADDED" if old is None else "MODIFIED", new)
        elif old is not None:
            self.send("DELETED", {**old, "metadata": {**old["metadata"], "resourceVersion": str(change.version)}})

    def send(self, kind: str, item: _Object) -> None:
        api_version, name = _KINDS[self.resource]
        if item.get("kind") != "Status":
            item = {"apiVersion": api_version, "kind": name, **item}
        self.lines.put_nowait(json.dumps({"type": kind, "object": item}).encode() + b"\n")

    def _sees(self, item: _Object) -> bool:
        metadata = item["metadata"]
        return self.namespace in (None, metadata["namespace"]) and self.matches(metadata.get("labels") or {})


class FakeKubernetes:
    """`async with FakeKubernetes() as cluster: cluster.put("pods", {...})`; its address stays over `stop` and `start`.

    Args:
        ssl_context: Makes it speak TLS.

    Attributes:
        port: Where it listens on 127.0.0.1.
        requests: What was asked, in order.
        gone_as: How a watch from a version that is gone is answered: an HTTP status, or an event in the stream.
        faults: Statuses the next requests are answered with, by verb.
        list_gate: Lists wait until it is set.
        is_mute: Whether watches are accepted and then never get a byte, as on a connection that died silently.
        page_items: No page of a list is longer, whatever is asked.
        token: The bearer token without which it answers 401.
        before_next_page: Called after a page that is not the last one was made.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self.requests: list[Asked] = []
        self.gone_as: Literal["status", "event"] = "status"
        self.faults: dict[str, list[int]] = {"list": [], "watch": []}
        self.list_gate = asyncio.Event()
        self.list_gate.set()
        self.is_mute = False
        self.page_items = 500
        self.token = TOKEN
        self.before_next_page: Callable[[], None] | None = None
        self._objects: dict[tuple[str, str, str], _Object] = {}
        self._history: list[_Past] = []
        self._version = 1000
        self._oldest = 1000
        self._snapshots: dict[int, list[_Object]] = {}
        self._watchers: set[_Watcher] = set()
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    # What a cluster does.

    def put(self, resource: str, item: _Object) -> None:
        """Create or replace an object."""
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        key = (resource, metadata["namespace"], metadata["name"])
        old = self._objects.get(key)
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self._version}")
        self._objects[key] = item
        self._record(_Past(self._version, resource, old, item))

    def delete(self, resource: str, name: str, namespace: str = "default") -> None:
        """Delete an object for good."""
        old = self._objects.pop((resource, namespace, name))
        self._version += 1
        self._record(_Past(self._version, resource, old, None))

    def compact(self) -> None:
        """Forget the history: versions before now are gone."""
        self._version += 1
        self._oldest = self._version
        self._history.clear()
        self._snapshots.clear()

    def forget_history(self) -> None:
        """Forget the history, but let lists under way end."""
        snapshots = dict(self._snapshots)
        self.compact()
        self._snapshots.update(snapshots)

    # What an API server does.

    async def __aenter__(self) -> FakeKubernetes:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        for prefix, resource in (("/api/v1", "pods"), ("/apis/discovery.k8s.io/v1", "endpointslices")):
            for scope in ("", "/namespaces/{namespace}"):
                app.router.add_get(f"{prefix}{scope}/{{resource:{resource}}}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._ssl_context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break every connection and listen no more."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def drop_watches(self, *, partial_line: bytes = b"") -> None:
        """Break the connections of all watches, in the middle of a line where one is given."""
        for watcher in tuple(self._watchers):
            if partial_line:
                watcher.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(partial_line), partial_line))
                watcher.transport.close()
            else:
                watcher.transport.abort()
            watcher.lines.put_nowait(None)
            self._watchers.discard(watcher)

    def end_watches(self) -> None:
        """End all watches in order, as at the end of their time."""
        for watcher in self._watchers:
            watcher.lines.put_nowait(None)

    def send_bookmarks(self) -> None:
        for watcher in self._watchers:
            if watcher.wants_bookmarks:
                watcher.send("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    def send_gone(self) -> None:
        """Tell every watcher in its stream that its version is gone."""
        for watcher in self._watchers:
            watcher.send("ERROR", _status(410, "too old resource version: 1 (2)"))
            watcher.lines.put_nowait(None)

    def send_line(self, line: bytes) -> None:
        for watcher in self._watchers:
            watcher.lines.put_nowait(line)

    def count(self, verb: str) -> int:
        return sum(asked.verb == verb for asked in self.requests)

    def watching(self) -> int:
        return len(self._watchers)

    async def until(self, state: Callable[[], object]) -> None:
        """Wait until `state()` is true; it is looked at whenever a request arrives or a watch begins or ends."""
        async with asyncio.timeout(20):
            while not state():
                self._changed.clear()
                await self._changed.wait()

    # How it answers.

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        resource, namespace = request.match_info["resource"], request.match_info.get("namespace")
        is_watch = query.get("watch") in ("1", "true", "True")
        verb: Literal["list", "watch"] = "watch" if is_watch else "list"
        self.requests.append(Asked(verb, resource, namespace, query))
        self._changed.set()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _refusal(401, "Unauthorized")
        if self.faults[verb]:
            status = self.faults[verb].pop(0)
            return _refusal(status, f"fault {status}")
        try:
            matches = parse_selector(query.get("labelSelector", ""))
        except ValueError as error:
            return _refusal(400, str(error))
        if is_watch:
            return await self._watch(request, resource, namespace, matches)
        return await self._list(query, resource, namespace, matches)

    async def _list(
        self, query: dict[str, str], resource: str, namespace: str | None, matches: Matcher
    ) -> web.StreamResponse:
        await self.list_gate.wait()
        limit = min(int(query.get("limit", 0)) or self.page_items, self.page_items)
        if token := query.get("continue"):
            position = json.loads(base64.b64decode(token))
            version, start, number = position["version"], position["start"], position["snapshot"]
            if number not in self._snapshots:
                return _refusal(410, "The provided continue parameter is too old to display a consistent list result.")
            found = self._snapshots[number]
        else:
            version, start, number = self._version, 0, len(self.requests)
            found = [
                copy.deepcopy(item)
                for (kind, space, _), item in sorted(self._objects.items())
                if kind == resource and namespace in (None, space) and matches(item["metadata"].get("labels") or {})
            ]
            self._snapshots[number] = found
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if start + limit < len(found):
            metadata["continue"] = base64.b64encode(
                json.dumps({"version": version, "start": start + limit, "snapshot": number}).encode()
            ).decode()
            metadata["remainingItemCount"] = len(found) - start - limit
            if self.before_next_page is not None:
                self.before_next_page()
        api_version, kind = _KINDS[resource]
        page = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": metadata}
        return web.json_response({**page, "items": found[start : start + limit]})

    async def _watch(
        self, request: web.Request, resource: str, namespace: str | None, matches: Matcher
    ) -> web.StreamResponse:
        query = request.query
        version = int(query.get("resourceVersion") or 0)
        is_gone = version < self._oldest
        if is_gone and self.gone_as == "status":
            return _refusal(410, f"too old resource version: {version} ({self._oldest})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        wants_bookmarks = query.get("allowWatchBookmarks") in ("1", "true", "True")
        watcher = _Watcher(resource, namespace, matches, wants_bookmarks, request.transport)
        if is_gone:
            watcher.send("ERROR", _status(410, f"too old resource version: {version} ({self._oldest})"))
            watcher.lines.put_nowait(None)
        else:
            for change in self._history:
                if change.version > version:
                    watcher.offer(change)
            self._watchers.add(watcher)
        self._changed.set()
        loop = asyncio.get_running_loop()
        ending = loop.call_later(int(query["timeoutSeconds"]), watcher.lines.put_nowait, None)
        try:
            while (line := await watcher.lines.get()) is not None:
                if not self.is_mute:
                    await response.write(line)
            if self.is_mute:
                await loop.create_future()
            await response.write_eof()
        except ConnectionError:
            pass
        finally:
            ending.cancel()
            self._watchers.discard(watcher)
            self._changed.set()
        return response

    def _record(self, change: _Past) -> None:
        self._history.append(change)
        for watcher in tuple(self._watchers):
            watcher.offer(change)


def _status(code: int, message: str) -> _Object:
    reasons = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 410: "Expired", 500: "InternalError"}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reasons.get(code, "Unknown"),
        "code": code,
    }


def _refusal(code: int, message: str) -> web.Response:
    return web.json_response(_status(code, message), status=code)
