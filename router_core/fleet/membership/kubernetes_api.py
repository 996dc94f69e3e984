"""One collection of a Kubernetes API server, listed and watched with the official client library.

The library finds the cluster, the credentials and the path; what comes back is read here, as raw JSON: its own watch
reconnects by itself and would hide the very gaps after which a full list is due.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import aiohttp
import orjson
import yaml

from router_core.contract.errors import StartupError
from router_core.fleet.membership.kubernetes_objects import key_of
from router_core.fleet.membership.watch import Change, Listing, WatchBrokenError

T = TypeVar("T")

Resource = Literal["pods", "endpointslices"]

_PAGE_ITEMS = 500
_LIST_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_S = 10.0
_CANNOT_REACH = (aiohttp.ClientError, OSError, TimeoutError, ValueError)  # ValueError: a line that is too long


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and how to log in.

    Attributes:
        kubeconfig: A kubeconfig file; None for the pod's own service account, or outside a cluster for the usual file.
        context: The context in that file; None for its current one.
        silence_s: How much longer than asked for a watch may last before its connection counts as dead.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    silence_s: float = 10.0


class KubernetesCollection(Generic[T]):
    """Pods or EndpointSlices that match a selector; use it as `async with`.

    Args:
        resource: Which collection.
        namespace: Which namespace, None for all.
        selector: Label selector, applied by the API server.
        access: Where and how.
        translate: Makes of an object what is kept of it.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        namespace: str | None,
        selector: str,
        access: Access,
        translate: Callable[[Mapping[str, Any]], T],
    ) -> None:
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._access = access
        self._translate = translate
        self._client: Any = None  # the library's ApiClient; it is imported when it is needed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def list_all(self) -> Listing[T]:
        """Return all objects.

        Asked without a resourceVersion, so that the answer is the newest state and not some API server's cache: an
        older list than the last one would bring workers back that are gone.
        """
        items: dict[str, T] = {}
        token = ""
        while True:
            page = await self._fetch_page({"limit": _PAGE_ITEMS, **({"_continue": token} if token else {})})
            metadata = page.get("metadata")
            found = page.get("items") or []
            if not isinstance(metadata, dict) or not isinstance(found, list) or not metadata.get("resourceVersion"):
                raise WatchBrokenError("the API server's answer is not a list of objects")
            for item in found:
                if not isinstance(item, dict) or (key := key_of(item)) is None:
                    raise WatchBrokenError("the API server's list holds an object without a name")
                items[key] = self._translate(item)
            token = metadata.get("continue") or ""
            if not token:
                return Listing(items, str(metadata["resourceVersion"]))

    async def watch(self, version: str, timeout_s: float) -> AsyncGenerator[Change[T], None]:
        """Yield the changes since a version."""
        asked_s = math.ceil(timeout_s)
        limit = aiohttp.ClientTimeout(total=asked_s + self._access.silence_s, sock_connect=_CONNECT_TIMEOUT_S)
        asked = {"watch": True, "allow_watch_bookmarks": True, "resource_version": version, "timeout_seconds": asked_s}
        try:
            response = await self._ask(asked, limit)
            try:
                await self._check(response, "watch")
                async for line in response.content:
                    if line.strip():
                        yield self._change(line)
            finally:
                response.close()
        except TimeoutError as error:
            raise WatchBrokenError("the watch was silent for too long; its connection counts as dead") from error
        except _CANNOT_REACH as error:
            raise WatchBrokenError(f"the watch broke: {_described(error)}") from error

    async def _fetch_page(self, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        limit = aiohttp.ClientTimeout(total=_LIST_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S)
        try:
            response = await self._ask(parameters, limit)
            try:
                await self._check(response, "list")
                page = orjson.loads(await response.read())
            finally:
                response.close()
        except TimeoutError as error:
            raise WatchBrokenError("the API server takes too long to list") from error
        except _CANNOT_REACH as error:
            raise WatchBrokenError(f"the list failed: {_described(error)}") from error
        return page if isinstance(page, dict) else {}

    async def _ask(self, parameters: Mapping[str, object], limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        if self._client is None:
            self._client = await _connect(self._access)
        library = load_library()
        if self._resource == "pods":
            api = library.client.CoreV1Api(self._client)
            everywhere, in_namespace = api.list_pod_for_all_namespaces, api.list_namespaced_pod
        else:
            api = library.client.DiscoveryV1Api(self._client)
            everywhere, in_namespace = api.list_endpoint_slice_for_all_namespaces, api.list_namespaced_endpoint_slice
        asked = {**parameters, "label_selector": self._selector, "_preload_content": False, "_request_timeout": limit}
        request = everywhere(**asked) if self._namespace is None else in_namespace(self._namespace, **asked)
        try:
            response: aiohttp.ClientResponse = await request
        except (library.config.ConfigException, library.client.OpenApiException) as error:  # while it renews a token
            raise WatchBrokenError(f"the client library refuses to ask: {_described(error)}") from error
        return response

    async def _check(self, response: aiohttp.ClientResponse, verb: str) -> None:
        """Raise unless the API server has said yes."""
        if response.status == 200:
            return
        reason = f"{verb} {self._resource} answered {response.status}: {_status_message(await response.read())}"
        if response.status == 400 and verb == "list":
            raise StartupError([f"kubernetes membership: {reason}; correct the selector {self._selector!r}"])
        if response.status == 401:
            await self._close()  # credentials may have been renewed: load them again
        if response.status == 403:
            reason += f"; allow the router's service account to list and watch {self._resource}"
        raise WatchBrokenError(reason)

    def _change(self, line: bytes) -> Change[T]:
        event = orjson.loads(line)
        kind, item = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if not isinstance(item, dict):
            raise WatchBrokenError(f"the watch sent what is no event: {line[:80]!r}")
        if kind == "ERROR":
            raise WatchBrokenError(f"the watch ended with {item.get('code')}: {item.get('message')}")
        metadata = item.get("metadata")
        version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
        if not isinstance(version, str) or not version:
            raise WatchBrokenError(f"the watch sent an event without a version: {line[:80]!r}")
        if kind == "BOOKMARK":
            return Change(version)
        key = key_of(item)
        if key is None or kind not in ("ADDED", "MODIFIED", "DELETED"):
            raise WatchBrokenError(f"the watch sent an event nobody understands: {line[:80]!r}")
        return Change(version, key, None if kind == "DELETED" else self._translate(item))

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def load_library() -> Any:  # Any: an optional dependency, its types may not be there
    """Return the official client library.

    Raises:
        StartupError: If it is not installed.
    """
    try:
        return importlib.import_module("kubernetes_asyncio")
    except ImportError as error:
        raise StartupError(
            [
                f"membership source 'kubernetes': its client library is missing ({error}): "
                "pip install 'router-core[kubernetes]'"
            ]
        ) from error


async def _connect(access: Access) -> Any:
    library = load_library()
    configuration = library.client.Configuration()
    try:
        if access.kubeconfig is None and access.context is None and _is_in_cluster():
            library.config.load_incluster_config(client_configuration=configuration)
        else:
            await library.config.load_kube_config(
                config_file=None if access.kubeconfig is None else str(access.kubeconfig),
                context=access.context,
                client_configuration=configuration,
                persist_config=False,
            )
        client = library.client.ApiClient(configuration)
    except (library.config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        raise StartupError(
            [
                f"kubernetes membership: no usable credentials: {_described(error)}; run the router in a pod with a "
                "service account, or set kubeconfig to a file"
            ]
        ) from error
    client.user_agent = "router-core"
    return client


def _is_in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _status_message(body: bytes) -> str:
    """Return the message of the API server's Status object, or the beginning of whatever came instead of one."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    message = status.get("message") if isinstance(status, dict) else None
    return str(message) if message else repr(body[:80])


def _described(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
