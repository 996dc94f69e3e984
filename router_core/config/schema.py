"""The settings: what each is called, what it takes, what it does. Not where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from router_core.config.admission import NOBODY_WAITS, AdmissionConfig
from router_core.config.auth import AuthConfig
from router_core.config.failures import BreakerConfig, RetriesConfig
from router_core.config.forwarding import ForwardedHeaders
from router_core.config.limits import LimitsConfig
from router_core.config.models import ModelConfig, distinct_models
from router_core.config.origins import Origins
from router_core.config.pd import PdConfig
from router_core.config.section import (
    Count,
    HeaderNames,
    LogLevel,
    Port,
    Seconds,
    Section,
    Word,
    WorkerUrls,
)
from router_core.config.selection import PluginSelection, PolicySelection
from router_core.config.tls import TlsConfig, WorkerTlsConfig
from router_core.config.tracing import TracingConfig
from router_core.config.values import (
    ContradictionError,
    not_bool,
    request_path,
    split_words,
)
from router_core.contract.secret import ApiKey


class HealthConfig(Section):
    """How workers are checked."""

    endpoint: Annotated[str, AfterValidator(request_path)] = "/health"
    """Path asked on each worker; any 2xx is healthy."""

    interval_s: Seconds = 10
    """Seconds between two checks of a worker."""

    timeout_s: Seconds = 5
    """Seconds after which a check without an answer has failed."""

    failure_threshold: Count = 3
    """Failed checks in a row after which a worker gets no requests; 1 if it lost a request and refuses the check."""

    success_threshold: Count = 1
    """Passed checks in a row after which it gets requests again."""

    enabled: bool = True
    """Ask workers how they are. Without it all are taken for well, and only failing requests tell otherwise."""


class TelemetryConfig(Section):
    """How engines are asked for their load. They are asked only if the policy needs it."""

    interval_s: Seconds = 5
    """Seconds between two questions to an engine, if the policy needs telemetry."""

    timeout_s: Seconds = 2
    """Seconds after which a question without an answer has failed."""


DEFAULT_REQUEST_ID_HEADERS = ("x-request-id", "x-correlation-id", "x-trace-id", "request-id")


class RouterConfig(Section):
    """All settings of the router."""

    host: Word = "0.0.0.0"  # noqa: S104 - a router is there to be reached
    """Address to listen on."""

    port: Port = 30000
    """Port to listen on; 0 lets the system choose."""

    worker_urls: WorkerUrls = ()
    """Base URLs of the workers, `http://HOST:PORT` each."""

    membership: Annotated[tuple[PluginSelection, ...], BeforeValidator(split_words)] = ()
    """Sources that find workers while the router runs, beside those in `worker_urls`."""

    policy: PolicySelection = PolicySelection()
    """The policy that picks a worker."""

    prefill_policy: PluginSelection | None = None
    """A policy for prefill workers alone; what else stands under `policy` holds for it too. Needs `pd`."""

    decode_policy: PluginSelection | None = None
    """A policy for decode workers alone, likewise."""

    wrappers: Annotated[tuple[PluginSelection, ...], BeforeValidator(split_words)] = ()
    """Plugins around the policy, outermost first."""

    observers: Annotated[tuple[PluginSelection, ...], BeforeValidator(split_words)] = (PluginSelection(name="metrics"),)
    """Plugins that are told of every request and choose nothing."""

    models: Annotated[tuple[ModelConfig, ...], BeforeValidator(split_words), AfterValidator(distinct_models)] = ()
    """Models with a pool and a policy of their own. All others share one pool, with the policy of the top level."""

    unknown_models: Literal["refuse", "pass"] = "refuse"
    """What becomes of a request for a model that no worker lists: 404, or `pass` to let a worker judge."""

    dp_aware: bool = False
    """Let the policy choose among an engine's data-parallel ranks: each is a worker of its own, `URL@RANK`."""

    dp_size: Annotated[int, Field(ge=1, le=1024), BeforeValidator(not_bool)] | None = None
    """Ranks of an engine that does not tell how many it has, as vLLM; a worker's label `dp_size` goes before it."""

    app_dir: Path | None = None
    """Folder in which `module:Class` names are looked up; unset takes the config file's, else the working directory."""

    reload_on_change: bool = False
    """Read the settings again, as on SIGHUP, whenever the config file or `auth.keys_file` has changed."""

    log_level: LogLevel = "info"
    """Least level of what is logged; `PUT /log_level` changes it while the router runs."""

    log_format: Literal["text", "json"] = "text"
    """How the log is written: a line of text a record, or a JSON object."""

    access_log: Literal["off", "errors", "all"] = "off"
    """Which inference requests get a line in the log when they are over."""

    access_log_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(not_bool)] = 1.0
    """Share of the requests without error that get one, with `access_log: all`; those with an error always do."""

    prometheus_host: Word | None = None
    """Address of a separate metrics port; unset takes `host`."""

    prometheus_port: Port | None = None
    """A separate port for `/metrics`; unset serves it on the main port alone."""

    metrics_compat: Annotated[tuple[Literal["smg", "vllm_router"], ...], BeforeValidator(split_words)] = ()
    """Gateways under whose metric names the figures are exposed as well: `smg` (sglang-router), `vllm_router`."""

    request_id_headers: HeaderNames = DEFAULT_REQUEST_ID_HEADERS
    """Request headers that may name a request, in this order; without one of them the router makes a name."""

    decision_headers: Literal["off", "on_request", "always"] = "off"
    """Tell clients worker, policy and reason in `x-router-*` headers; `on_request` if they send `x-router-debug: 1`."""

    error_code_header: Literal["x-smg-error-code", "x-router-error-code"] | None = None
    """A header that tells the code of the router's own errors too, as gateways do; unset leaves it to the body."""

    admin_host: Word | None = None
    """Address of the port for administration; unset takes 127.0.0.1."""

    admin_port: Port | None = None
    """A separate port for administration, which the main port then no longer serves; unset serves it there."""

    cors_allowed_origins: Origins = ()
    """Pages that may use the router from a browser, `https://HOST[:PORT]` each, or `*` for all; empty allows none."""

    proxy_unknown_paths: bool = False
    """Hand paths the router does not know to a worker instead of answering 404."""

    health: HealthConfig = HealthConfig()
    """How workers are checked."""

    telemetry: TelemetryConfig = TelemetryConfig()
    """How engines are asked for their load."""

    breaker: BreakerConfig = BreakerConfig()
    """When a worker that fails its requests gets none for a while."""

    retries: RetriesConfig = RetriesConfig()
    """When a request that failed is sent again."""

    limits: LimitsConfig = LimitsConfig()
    """What a client or a worker may take of the router."""

    tls: TlsConfig = TlsConfig()
    """TLS towards clients."""

    worker_api_key: ApiKey | None = None
    """Key sent to workers in place of the client's own credentials, unless a worker has a key of its own."""

    forward_headers: ForwardedHeaders = ("all",)
    """Which of a client's headers workers get: names, `x-name-*`, `all` (but cookies), `sglang` (as its gateway)."""

    worker_tls: WorkerTlsConfig = WorkerTlsConfig()
    """TLS towards workers."""

    tracing: TracingConfig = TracingConfig()
    """OpenTelemetry traces."""

    auth: AuthConfig = AuthConfig()
    """Who may use the router."""

    admission: AdmissionConfig = AdmissionConfig()
    """How much is taken on at once."""

    pd: PdConfig = PdConfig()
    """Prefill/decode disaggregation."""

    @field_validator("dp_size")
    @classmethod
    def _is_of_ranks(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("dp_aware"):
            raise ContradictionError("is for routing to ranks; add dp_aware: true, or leave it out", "dp_aware")
        return value

    @field_validator("pd")
    @classmethod
    def _serves_in_one_way(cls, value: PdConfig, info: ValidationInfo) -> PdConfig:
        if value.is_on and info.data.get("worker_urls"):
            problem = "stands beside worker_urls; name prefill and decode workers, or regular ones"
            raise ContradictionError(problem, "worker_urls")
        for name in ("prefill_policy", "decode_policy"):
            if not value.is_on and info.data.get(name) is not None:
                problem = f"has no workers for {name}; name prefill and decode workers, or leave {name} out"
                raise ContradictionError(problem, name)
        return value

    @model_validator(mode="after")
    def _names_each_worker_once(self) -> RouterConfig:
        places = {
            "worker_urls": self.worker_urls,
            "pd": self.pd.urls,
            **{f"models[{index}]": model.urls for index, model in enumerate(self.models)},
        }
        first: dict[str, str] = {}
        for place, urls in places.items():
            for url in urls:
                if (other := first.setdefault(url, place)) != place:
                    problem = f"{other} and {place}: {url} stands in both; name each worker once"
                    raise ContradictionError(problem, *(name.partition("[")[0] for name in (other, place)))
        return self

    @field_validator("admission")
    @classmethod
    def _has_somebody_waiting(cls, value: AdmissionConfig, info: ValidationInfo) -> AdmissionConfig:
        """Refuse settings of a queue that stays empty; a file of keys, which may say otherwise, is not read here."""
        auth = info.data.get("auth")
        if value.is_limited or auth is None or auth.keys_file is not None:
            return value
        if value.settings_of_queue and not any(key.max_concurrent_requests for key in auth.keys):
            raise ValueError(f"{value.settings_of_queue[0]} {NOBODY_WAITS}")
        return value

    @field_validator("admin_port")
    @classmethod
    def _is_apart_from_clients(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("admin_host") is not None:
            problem = "is missing beside admin_host; give both, or neither for administration on the main port"
            raise ContradictionError(problem, "admin_host")
        for other in ("port", "prometheus_port"):
            if value and value == info.data.get(other):
                raise ContradictionError(f"{value} is {other} already; give another", other)
        return value

    @field_validator("prometheus_port")
    @classmethod
    def _fits_the_other_ports(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("prometheus_host") is not None:
            problem = "is missing beside prometheus_host; give both, or neither for /metrics on the main port"
            raise ContradictionError(problem, "prometheus_host")
        if value and value == info.data.get("port"):
            problem = f"{value} is the router's own port; give another, or none for /metrics on the main port"
            raise ContradictionError(problem, "port")
        return value
