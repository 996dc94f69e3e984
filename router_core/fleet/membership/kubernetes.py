"""Workers that run as pods in Kubernetes, found by label selector."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from router_core.contract.errors import StartupError
from router_core.contract.membership import Report, WorkerSpec
from router_core.contract.policy import PolicyConfig
from router_core.contract.worker import WorkerRole
from router_core.fleet.membership.entries import PortNumber
from router_core.fleet.membership.kubernetes_api import Access, KubernetesCollection, load_library
from router_core.fleet.membership.kubernetes_objects import (
    UnusableObjectError,
    WorkerRules,
    key_of,
    merge,
    workers_of_pod,
    workers_of_slice,
)
from router_core.fleet.membership.watch import Reflector, WatchTiming

log = logging.getLogger(__name__)

_Specs = tuple[WorkerSpec, ...]


def _selector_text(value: object) -> object:
    """Return a selector as the API server takes it: `{app: vllm}` is `app=vllm`."""
    if isinstance(value, Mapping):
        if strange := [key for key, text in value.items() if not isinstance(text, str)]:
            raise ValueError(f"the value of {strange[0]} is not text; put it in quotes")
        return ",".join(f"{key}={text}" for key, text in value.items())
    return value


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty selector would match everything; name a label, such as {app: vllm}")
    return text.strip()


def _number_if_digits(value: object) -> object:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value) else value


Selector = Annotated[str, BeforeValidator(_selector_text), AfterValidator(_not_empty)]
PortName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class KubernetesMembership:
    """Reports the pods, or the endpoints of EndpointSlices, that match the selectors and are ready.

    Nothing is reported before every selector has been listed once; afterwards each report is the whole list.

    Args:
        config: The options.
        timing: When lists and watches are done; `resync_s` of the options unless given.
        silence_s: How much longer than asked for a watch may last before its connection counts as dead.
        random: Spreads lists and pauses.
        sleep: Waits.
    """

    class Config(PolicyConfig):
        """Options of the source `kubernetes`."""

        mode: Literal["pods", "endpointslices"] = "pods"
        """What is watched: pods, or the EndpointSlices of Services."""

        namespace: Annotated[str, Field(min_length=1)] | None = None
        """The namespace; unset watches all, which takes a ClusterRole."""

        selector: Selector | None = None
        """Label selector of the regular workers: `{app: vllm}`, or text such as `app=vllm,tier!=test`."""

        prefill_selector: Selector | None = None
        """Label selector of the prefill workers."""

        decode_selector: Selector | None = None
        """Label selector of the decode workers."""

        port: Annotated[PortNumber | PortName | None, BeforeValidator(_number_if_digits)] = None
        """Number or name of the port the engine listens on; unset takes the only one the pod or the slice declares."""

        bootstrap_port_annotation: str = "sglang.ai/bootstrap-port"
        """Annotation of a prefill pod (or slice) that holds the port of its SGLang bootstrap server."""

        bootstrap_port: PortNumber | None = None
        """Bootstrap port of prefill workers that lack the annotation."""

        model_labels: tuple[str, ...] = ("model_id",)
        """Labels or annotations that name the models a worker serves; where none is set, the engine is asked."""

        labels: tuple[str, ...] = ()
        """Labels passed on to policies. When one of them changes, the worker leaves and joins again."""

        kubeconfig: Path | None = None
        """A kubeconfig file; unset takes the pod's service account, or outside a cluster the usual file."""

        context: str | None = None
        """Context in the kubeconfig file; unset takes its current one."""

        resync_s: Annotated[float, Field(ge=1, le=86400, allow_inf_nan=False)] = 300.0
        """Seconds between full lists when nothing goes wrong."""

        @model_validator(mode="after")
        def _some_selector(self) -> KubernetesMembership.Config:
            if self.selector is None and self.prefill_selector is None and self.decode_selector is None:
                raise ValueError("no selector is set; set selector, or prefill_selector and decode_selector")
            return self

    def __init__(
        self,
        config: Config,
        *,
        timing: WatchTiming | None = None,
        silence_s: float = 10.0,
        random: Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._config = config
        self._timing = timing or WatchTiming(resync_s=config.resync_s)
        self.max_silence_s = 3 * self._timing.watch_s
        self._access = Access(config.kubeconfig, config.context, silence_s)
        self._random = random or Random()  # noqa: S311  # spreads requests in time
        self._sleep = sleep
        chosen = {
            WorkerRole.REGULAR: config.selector,
            WorkerRole.PREFILL: config.prefill_selector,
            WorkerRole.DECODE: config.decode_selector,
        }
        self._selectors = {role: selector for role, selector in chosen.items() if selector is not None}
        self._found: dict[WorkerRole, Mapping[str, _Specs]] = {}
        self._reported: _Specs | None = None
        self._complaints: dict[tuple[WorkerRole, str | None], str] = {}

    async def run(self, report: Report) -> None:
        """Follow the cluster and report the workers.

        Raises:
            StartupError: If the client library or the credentials are missing, or a selector is refused.
        """
        load_library()
        self._found.clear()
        self._reported = None
        problems: list[str] = []
        async with AsyncExitStack() as stack:
            reflectors = [await self._reflector(stack, role, report) for role in self._selectors]
            try:
                async with asyncio.TaskGroup() as group:
                    for reflector in reflectors:
                        group.create_task(reflector.run())
            except* StartupError as refused:
                problems += [text for error in refused.exceptions for text in getattr(error, "problems", ())]
        raise StartupError(dict.fromkeys(problems))

    async def _reflector(self, stack: AsyncExitStack, role: WorkerRole, report: Report) -> Reflector[_Specs]:
        selector, rules = self._selectors[role], self._rules(role)

        def take(items: Mapping[str, _Specs]) -> None:
            self._found[role] = items
            for place in [place for place in self._complaints if place[0] is role and place[1] not in items]:
                del self._complaints[place]
            if len(self._found) == len(self._selectors):
                self._report(report)

        collection = await stack.enter_async_context(
            KubernetesCollection(
                self._config.mode,
                namespace=self._config.namespace,
                selector=selector,
                access=self._access,
                translate=lambda item: self._translate(item, rules),
            )
        )
        return Reflector(
            collection,
            take,
            name=f"kubernetes {self._config.mode} {selector!r}",
            timing=self._timing,
            random=self._random,
            sleep=self._sleep,
        )

    def _rules(self, role: WorkerRole) -> WorkerRules:
        config = self._config
        return WorkerRules(
            role=role,
            port=config.port,
            model_keys=config.model_labels,
            label_keys=config.labels,
            bootstrap_annotation=config.bootstrap_port_annotation,
            bootstrap_port=config.bootstrap_port,
        )

    def _translate(self, item: Mapping[str, Any], rules: WorkerRules) -> _Specs:
        """Return an object's workers; one that is unusable has none, and is logged once."""
        place = (rules.role, key_of(item))
        try:
            specs = workers_of_pod(item, rules) if self._config.mode == "pods" else workers_of_slice(item, rules)
        except UnusableObjectError as error:
            if self._complaints.get(place) != str(error):
                self._complaints[place] = str(error)
                log.warning("kubernetes %s %s is not used: %s", self._config.mode, place[1], error)
            return ()
        self._complaints.pop(place, None)
        return specs

    def _report(self, report: Report) -> None:
        specs = tuple(spec for role in self._selectors for spec in merge(self._found[role].values()))
        if self._reported is None or specs != self._reported:
            self._reported = specs
        report(self._reported)
