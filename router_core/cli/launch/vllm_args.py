"""What vllm-router 0.1.17 takes and sglang-router does not, with what this router does with it.

Flags that both have are in `router_args.py`, with sglang-router's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from router_core.cli.launch.flags import Composes, Origin, Refused, flag

_VLLM: Origin = "vllm-router"
_NO_KV_EVENTS = Refused(
    "the router needs no KV events: predicted_latency, cache_aware and dynamo_cost know what was sent to each worker; "
    "name one of them by --policy and leave it out"
)
_NO_TIERS = Refused(
    "no policy here knows in which tier an engine keeps a prefix; take --policy dynamo_cost and leave it out"
)
_NO_PROGRAMS = Refused(
    "requests are not scheduled by programs; leave it out, and take --policy predicted_latency, which keeps a "
    "conversation where its prefix is cached, or consistent_hash, which keeps it where its session is"
)
_NO_WASM = Refused("the router runs no WebAssembly; put a proxy before it, or write a plugin in Python")


@dataclass(kw_only=True)
class VllmRouterArgs:
    """The arguments of vllm-router alone."""

    # --- pairs and ranks ---
    vllm_pd_disaggregation: bool = flag(
        False,
        Composes(("pd.enabled", "pd.protocol")),
        "Serve each request by a prefill and a decode worker of vLLM.",
        origin=_VLLM,
    )
    kv_connector: str = flag(
        "nixl",
        Composes(("pd.options.connector",), "`moriio` is refused; `p2p` is taken too."),
        "How vLLM workers move KV caches.",
        metavar="NAME",
        origin=_VLLM,
    )
    vllm_discovery_address: str | None = flag(
        None,
        Refused(
            "workers do not report themselves by ZeroMQ here; name them by --prefill and --decode, find them by "
            "--service-discovery, or add them by POST /workers"
        ),
        "Where workers report themselves by ZeroMQ.",
        metavar="HOST:PORT",
        origin=_VLLM,
    )
    intra_node_data_parallel_size: int = flag(
        1,
        Composes(("dp_aware", "dp_size"), "Above 1; an engine that tells how many ranks it has is believed."),
        "Data-parallel ranks of each engine, to choose among.",
        origin=_VLLM,
    )

    # --- policies ---
    router_temperature: float = flag(
        0.0,
        Refused("it is an option of kv_aware; take --policy dynamo_cost --policy-option temperature=NUMBER"),
        "Softmax temperature of kv_aware.",
        origin=_VLLM,
    )
    kv_penalty_host: float = flag(
        0.8, _NO_TIERS, "What a prefix in the host's memory counts in kv_aware.", origin=_VLLM
    )
    kv_penalty_external: float = flag(
        0.6, _NO_TIERS, "What a prefix in an external store counts in kv_aware.", origin=_VLLM
    )
    kv_penalty_disk: float = flag(0.3, _NO_TIERS, "What a prefix on disk counts in kv_aware.", origin=_VLLM)
    kv_aware_session_affinity_ttl_secs: int | None = flag(
        None,
        Refused(
            "it is an option of kv_aware; --policy consistent_hash keeps sessions together, and --policy manual "
            "--max-idle-secs SECONDS does so for as long"
        ),
        "Seconds after which kv_aware forgets an idle session.",
        type=int,
        origin=_VLLM,
    )
    kv_event_source: list[str] = flag(
        [],
        _NO_KV_EVENTS,
        "Where a worker tells of its KV cache.",
        action="append",
        metavar="URL=ENDPOINT",
        origin=_VLLM,
    )
    kv_event_replay_source: list[str] = flag(
        [], _NO_KV_EVENTS, "Where it tells again.", action="append", metavar="URL=ENDPOINT", origin=_VLLM
    )
    kv_event_block_size: int = flag(16, _NO_KV_EVENTS, "Tokens in a block of theirs.", origin=_VLLM)
    kv_event_model: str | None = flag(None, _NO_KV_EVENTS, "The model of those workers.", origin=_VLLM)
    pd_kv_events: list[str] = flag(
        [],
        _NO_KV_EVENTS,
        "Where a prefill worker tells of its KV cache.",
        action="append",
        metavar="URL=ENDPOINT",
        origin=_VLLM,
    )
    enable_program_scheduling: bool = flag(False, _NO_PROGRAMS, "Schedule by programs.", origin=_VLLM)
    program_scheduling_config_json: str | None = flag(None, _NO_PROGRAMS, "How.", metavar="JSON", origin=_VLLM)

    # --- middleware ---
    wasm_middleware: str | None = flag(
        None, _NO_WASM, "WebAssembly that sees each request.", metavar="FILE", origin=_VLLM
    )
    wasm_middleware_sha256: str | None = flag(None, _NO_WASM, "Its SHA-256.", origin=_VLLM)
    wasm_middleware_routes: list[str] = flag(
        [],
        _NO_WASM,
        "A path that it sees.",
        name="wasm-middleware-route",
        action="append",
        metavar="PATH",
        origin=_VLLM,
    )
