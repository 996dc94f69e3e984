"""Administration of workers: who is registered, who joins, who leaves.

Errors here have the shape that gateways' admin clients read: {"error": "a sentence", "code": "WORKER_NOT_FOUND"}.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from aiohttp import web

from router_core.contract.worker import Worker, WorkerRole
from router_core.contract.worker_url import worker_url
from router_core.control.health import json_response
from router_core.control.worker_form import FormError, WorkerForm, read_form
from router_core.control.worker_info import worker_info
from router_core.fleet.membership.roster import BOOTSTRAP_PORT_LABEL
from router_core.fleet.registry import AlreadyRegisteredError, Registration, WorkerRegistry

log = logging.getLogger(__name__)

WhyUnused = Callable[[WorkerRole, Collection[str]], str | None]
"""Returns why a worker of a role, and with such models, would never get a request; None if it may get some."""


class WorkerAdmin:
    """Answers `/workers` and what lies below it, and the older paths for the same."""

    def __init__(
        self,
        registry: WorkerRegistry,
        is_own_address: Callable[[str], bool],
        why_unused: WhyUnused,
        ask_models: Callable[[Worker], None],
    ) -> None:
        self._registry = registry
        self._is_own_address = is_own_address
        self._why_unused = why_unused
        self._ask_models = ask_models

    # --- /workers ---

    async def list_workers(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with every registered worker."""
        registrations = self._registry.registrations
        roles = Counter(registration.workers[0].role for registration in registrations)
        return json_response(
            {
                "workers": [worker_info(registration) for registration in registrations],
                "total": len(registrations),
                "stats": {f"{role}_count": roles[role] for role in _ROLES},
            }
        )

    async def add_worker(self, request: web.Request) -> web.Response:
        """Register a worker and answer 202: it gets requests once its health check passes."""
        try:
            form, without_effect = read_form(await request.read())
            worker = form.to_worker()
            self._refuse_own_address(worker.url)
            self._refuse_unused(worker.role, worker.models)
        except FormError as error:
            return _bad_request(str(error))
        try:
            registration = self._register(worker)
            self._registry.keys.give(registration.url, form.key)
        except AlreadyRegisteredError as error:
            return _conflict(error)
        message = "The worker is being registered; it gets requests once its health check passes."
        return _accepted(registration, message, without_effect, is_new=True)

    async def get_worker(self, request: web.Request) -> web.Response:
        """Answer with one worker."""
        found = self._find(request)
        return json_response(worker_info(found)) if isinstance(found, Registration) else found

    async def replace_worker(self, request: web.Request) -> web.Response:
        """Set labels, priority and cost, to their defaults where the body is silent; the rest only if it is given."""
        return await self._change(request, is_merge=False)

    async def merge_worker(self, request: web.Request) -> web.Response:
        """Change what the body names; a label given as null goes."""
        return await self._change(request, is_merge=True)

    async def remove_worker(self, request: web.Request) -> web.Response:
        """Let a worker drain and answer 202."""
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        return _accepted(found, self._drain(found), ())

    # --- the older paths ---

    async def add_url(self, request: web.Request) -> web.Response:
        """Register the worker at `?url=` and answer in text."""
        try:
            self._refuse_rank(request.query.get("url", ""))
            url = _url_in_query(request)
            self._refuse_own_address(url)
            self._refuse_unused(WorkerRole.REGULAR, ())
        except FormError as error:
            return _bad_request(str(error))
        try:
            self._register(Worker(url, is_healthy=False))
        except AlreadyRegisteredError as error:
            return _conflict(error)
        return web.Response(text=f"Worker {url} is being registered; it gets requests once its health check passes.")

    async def remove_url(self, request: web.Request) -> web.Response:
        """Let the worker at `?url=` drain and answer in text."""
        try:
            self._refuse_rank(request.query.get("url", ""))
            url = _url_in_query(request)
        except FormError as error:
            return _bad_request(str(error))
        registration = self._registry.at(url)
        if registration is None:
            return _not_found(url)
        return web.Response(text=f"Worker {url}: {self._drain(registration)}")

    async def list_urls(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with the addresses of all workers that stay."""
        stay = (registration for registration in self._registry.registrations if not registration.is_draining)
        return json_response({"urls": [registration.url for registration in stay]})

    # --- inside ---

    def _refuse_own_address(self, url: str) -> None:
        if self._is_own_address(url):
            raise FormError(f"url: {url} is this router itself; name a worker")

    def _refuse_rank(self, url: str) -> None:
        """Explain about ranks to those who name one, but of a registered engine only: else it may be a password."""
        engine, _, rank = url.rpartition("@")
        if engine and rank.isdecimal() and self._registry.at(engine) is not None:
            raise FormError(f"url: {url} is a rank of {engine}, whose ranks join and leave together; name {engine}")

    def _refuse_unused(self, role: WorkerRole, models: Collection[str]) -> None:
        if (reason := self._why_unused(role, models)) is not None:
            raise FormError(f"worker_type: {reason}")

    def _register(self, worker: Worker) -> Registration:
        registration = self._registry.register(worker)
        log.info("worker %s (%s) joined: added by an administrator", registration.url, worker.role.value)
        return registration

    def _drain(self, registration: Registration) -> str:
        if not registration.is_draining:
            log.info("worker %s drains: removed by an administrator", registration.url)
        self._registry.drain(registration)
        if not registration.workers:
            return "The worker has left."
        return "The worker gets no new requests and leaves once those it has are done."

    async def _change(self, request: web.Request, *, is_merge: bool) -> web.Response:
        found = self._find(request)
        if isinstance(found, web.Response):
            return found
        try:
            form, without_effect = read_form(await request.read())
            if form.url not in (None, found.url):
                raise FormError(f"url: {form.url} is not this worker's, {found.url}; remove the worker and add another")
            self._apply(form, found, is_merge=is_merge)
        except FormError as error:
            return _bad_request(str(error))
        return _accepted(found, "The worker is changed.", without_effect)

    def _apply(self, form: WorkerForm, registration: Registration, *, is_merge: bool) -> None:
        # 1. A draining worker is on its way out.
        if registration.is_draining:
            raise FormError("the worker is draining and cannot be changed; add it again to keep it")
        worker = registration.workers[0]
        role = form.role if "role" in form.model_fields_set else worker.role
        if form.bootstrap_port is not None and role is not WorkerRole.PREFILL:
            raise FormError("bootstrap_port: only a prefill worker has one; set worker_type to prefill, or remove it")
        if role is not worker.role or form.names_models:
            self._refuse_unused(role, form.named_models if form.names_models else worker.models)
        # 2. What a worker is stays unless told otherwise; what is said of it is replaced or merged.
        kept = dict(worker.labels) if is_merge else {}
        if role is WorkerRole.PREFILL and BOOTSTRAP_PORT_LABEL in worker.labels:
            kept[BOOTSTRAP_PORT_LABEL] = worker.labels[BOOTSTRAP_PORT_LABEL]
        else:
            kept.pop(BOOTSTRAP_PORT_LABEL, None)
        self._registry.describe(
            registration,
            role=role,
            models=form.named_models if form.names_models else None,
            labels=form.labels_now(kept),
        )
        if form.names_models and not form.named_models:
            for worker in registration.workers:
                self._ask_models(worker)
        if "api_key" in form.model_fields_set:
            self._registry.keys.give(registration.url, form.key)

    def _find(self, request: web.Request) -> Registration | web.Response:
        """Return the registration that a path names, by its id or by its address; else the answer that says why not."""
        name = request.match_info["id"]
        if "://" in name:
            try:
                self._refuse_rank(name)
                return self._registry.at(worker_url(name)) or _not_found(name)
            except (FormError, ValueError) as error:
                return _bad_request(str(error))
        if not _is_uuid(name):
            return _bad_request(f"{name[:80]!r} is not a worker's id; GET /workers lists them")
        return self._registry.find(name.lower()) or _not_found(name)


_ROLES = (WorkerRole.PREFILL, WorkerRole.DECODE, WorkerRole.REGULAR)


def _url_in_query(request: web.Request) -> str:
    try:
        return worker_url(request.query["url"])
    except KeyError:
        raise FormError(f"the query lacks url; write {request.path}?url=http://HOST:PORT") from None
    except ValueError as error:
        raise FormError(f"url: {error}") from error


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _accepted(
    registration: Registration, message: str, without_effect: Iterable[str], *, is_new: bool = False
) -> web.Response:
    location = f"/workers/{registration.id}"
    facts = {
        "status": "accepted",
        "worker_id": registration.id,
        "url": registration.url,
        "location": location,
        "message": message,
    }
    if ignored := list(without_effect):
        facts["message"] = f"{message} Without effect here: {', '.join(ignored)}."
    response = json_response(facts, status=202)
    if is_new:
        response.headers["Location"] = location
    return response


def _error(status: int, code: str, message: str) -> web.Response:
    return json_response({"error": message, "code": code}, status=status)


def _bad_request(message: str) -> web.Response:
    return _error(400, "BAD_REQUEST", message)


def _not_found(name: str) -> web.Response:
    return _error(404, "WORKER_NOT_FOUND", f"There is no worker {name}; GET /workers lists them.")


def _conflict(error: AlreadyRegisteredError) -> web.Response:
    response = _error(
        409, "WORKER_ALREADY_EXISTS", f"Worker {error.registration.url} exists already; PUT or PATCH changes it."
    )
    response.headers["Location"] = f"/workers/{error.registration.id}"
    return response
