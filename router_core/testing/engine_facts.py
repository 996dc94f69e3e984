"""Everything a simulated engine answers that is not generated text: embeddings, scores, tokens, models, telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from router_core.engine_model.prefix_cache import BYTES_PER_TOKEN, PrefixCache, token_count
from router_core.testing.engine_request import BadRequestError, flatten_content
from router_core.testing.engine_state import EngineState
from router_core.testing.engine_steps import StepLoop

MAX_MODEL_LENGTH = 131_072
_DIMENSIONS = 8


def embeddings(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Answer `/v1/embeddings`: a short vector fixed by the text."""
    texts = _texts(body.get("input"), "input")
    data = [
        {"object": "embedding", "index": index, "embedding": [_unit(text, n) for n in range(_DIMENSIONS)]}
        for index, text in enumerate(texts)
    ]
    return {"object": "list", "data": data, "model": model, "usage": _usage(texts)}


def classify(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Answer `/v1/classify`."""
    texts = _texts(body.get("input"), "input")
    data = []
    for index, text in enumerate(texts):
        share = _unit(text)
        label = "positive" if share >= 0.5 else "negative"
        data.append({"index": index, "label": label, "probs": [1 - share, share], "num_classes": 2})
    return {"object": "list", "data": data, "model": model, "usage": _usage(texts)}


def score(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Answer `/v1/score` and `/score`: a number for each pair of texts."""
    queries = _texts(body.get("text_1", body.get("queries", body.get("query"))), "text_1")
    texts = _texts(body.get("text_2", body.get("documents", body.get("items"))), "text_2")
    if len(queries) == 1:
        queries = queries * len(texts)
    data = [
        {"index": index, "object": "score", "score": _unit(f"{query}\n{text}")}
        for index, (query, text) in enumerate(zip(queries, texts, strict=False))
    ]
    return {"object": "list", "data": data, "model": model, "usage": _usage([*queries, *texts])}


def rerank(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Answer `/v1/rerank` and `/rerank`: the documents, best first, at most `top_n`."""
    query = _texts(body.get("query"), "query")[0]
    documents = _texts(body.get("documents"), "documents")
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": _unit(f"{query}\n{text}")}
        for index, text in enumerate(documents)
    ]
    results.sort(key=lambda result: -float(str(result["relevance_score"])))
    top_n = body.get("top_n") or len(results)
    return {"model": model, "results": results[:top_n], "usage": _usage([query, *documents])}


def tokenize(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Answer `/v1/tokenize` and `/tokenize`: four bytes a token, so that `detokenize` can undo it."""
    if "messages" in body:
        text = "".join(flatten_content(message.get("content")) for message in body["messages"])
    else:
        text = _texts(body.get("prompt"), "prompt")[0]
    data = text.encode()
    pieces = (data[start : start + BYTES_PER_TOKEN] for start in range(0, len(data), BYTES_PER_TOKEN))
    tokens = [int.from_bytes(piece + b"\x01", "little") for piece in pieces]
    return {"count": len(tokens), "max_model_len": MAX_MODEL_LENGTH, "tokens": tokens, "model": model}


def detokenize(body: dict[str, Any], _model: str) -> dict[str, Any]:
    """Answer `/v1/detokenize` and `/detokenize`."""
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) and token >= 0 for token in tokens):
        raise BadRequestError("tokens must be a list of whole numbers")
    pieces = (token.to_bytes((token.bit_length() + 7) // 8, "little")[:-1] for token in tokens)
    return {"prompt": b"".join(pieces).decode(errors="replace")}


INFERENCE: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "/v1/embeddings": embeddings,
    "/v1/classify": classify,
    "/v1/score": score,
    "/score": score,
    "/v1/rerank": rerank,
    "/rerank": rerank,
    "/v1/tokenize": tokenize,
    "/tokenize": tokenize,
    "/v1/detokenize": detokenize,
    "/detokenize": detokenize,
}


def transcribe(content_type: str, body: bytes) -> dict[str, Any]:
    """Answer `/v1/audio/transcriptions`: which file came, how long it was and its hash."""
    kind, _, rest = content_type.partition("boundary=")
    boundary = rest.partition(";")[0].strip('" ')
    if not kind.strip().startswith("multipart/form-data") or not boundary:
        raise BadRequestError("audio comes as multipart/form-data")
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            audio = content.removesuffix(b"\r\n")
            return {"text": f"You said: {len(audio)} bytes [{xxh3_64_hexdigest(audio)}]"}
    raise BadRequestError("file is missing")


def models(state: EngineState) -> dict[str, Any]:
    """Answer `/v1/models`."""
    data = [
        {
            "id": model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "simulated",
            "root": model,
            "parent": parent,
            "max_model_len": MAX_MODEL_LENGTH,
        }
        for model, parent in (*((model, None) for model in state.models), *state.adapters.items())
    ]
    return {"object": "list", "data": data}


def server_info(state: EngineState) -> dict[str, Any]:
    """Answer `/server_info` and its relatives, the SGLang shape."""
    model = state.models[0]
    return {
        "model_path": model,
        "served_model_name": model,
        "is_generation": True,
        "dp_size": state.dp_size,
        "version": "0-simulated",
        "engine": state.name,
    } | ({"disaggregation_mode": state.role, "disaggregation_bootstrap_port": state.bootstrap_port} if state.pd else {})


def loads(state: EngineState, steps: StepLoop, cache: PrefixCache, running: Sequence[int]) -> dict[str, Any]:
    """Answer `/v1/loads`, the SGLang shape.

    Args:
        state: The engine.
        steps: Its sequences.
        cache: Its prefix cache.
        running: Requests on each data-parallel rank; several ranks share one queue, so none of them wait.
    """
    if len(running) > 1:
        ranks = [
            {
                "dp_rank": rank,
                "num_running_reqs": count,
                "num_waiting_reqs": 0,
                "num_total_reqs": count,
                "token_usage": _cache_usage(cache),
            }
            for rank, count in enumerate(running)
        ]
        return {"timestamp": time.time(), "version": "0-simulated", "loads": ranks}
    only = {
        "dp_rank": 0,
        "num_running_reqs": steps.running,
        "num_waiting_reqs": steps.waiting,
        "num_waiting_uncached_tokens": steps.waiting_tokens,
        "num_total_reqs": steps.running + steps.waiting,
        "num_used_tokens": steps.context_tokens,
        "token_usage": _cache_usage(cache),
        "max_running_requests": state.constants.max_running,
    }
    return {"timestamp": time.time(), "version": "0-simulated", "loads": [only]}


def metrics(state: EngineState, steps: StepLoop, cache: PrefixCache, finished: Mapping[str, int]) -> str:
    """Answer `/metrics` in Prometheus text: with vLLM's names, or SGLang's few if it speaks SGLang's protocol.

    Args:
        state: The engine.
        steps: Its sequences.
        cache: Its prefix cache.
        finished: Generation requests that ended, by finish reason. In vLLM, too, `abort` stays 0 when a client leaves.
    """
    figures: tuple[tuple[str, str, float], ...] = (
        ("gauge", "vllm:num_requests_running", steps.running),
        ("gauge", "vllm:num_requests_waiting", steps.waiting),
        ("gauge", "vllm:kv_cache_usage_perc", _cache_usage(cache)),
        ("counter", "vllm:prefix_cache_queries_total", steps.prompt_tokens),
        ("counter", "vllm:prefix_cache_hits_total", steps.cached_tokens),
        ("counter", "vllm:prompt_tokens_total", steps.prompt_tokens),
        ("counter", "vllm:prompt_tokens_cached_total", steps.cached_tokens),
        ("counter", "vllm:generation_tokens_total", steps.generated_tokens),
    )
    labels = f'engine="0",model_name="{state.models[0]}"'
    if state.pd == "sglang":
        labels = f'engine_type="{state.role}",model_name="{state.models[0]}",pp_rank="0",tp_rank="0"'
        figures = (
            ("gauge", "sglang:num_running_reqs", steps.running),
            ("gauge", "sglang:num_queue_reqs", steps.waiting),
            ("gauge", "sglang:token_usage", _cache_usage(cache)),
        )
    lines: list[str] = []
    for kind, name, value in figures:
        lines += (f"# HELP {name} Simulated.", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}")
    if state.pd == "sglang":
        return "\n".join(lines) + "\n"
    success = "vllm:request_success_total"
    lines += (f"# HELP {success} Simulated.", f"# TYPE {success} counter")
    lines += (f'{success}{{{labels},finished_reason="{reason}"}} {count}' for reason, count in finished.items())
    return "\n".join(lines) + "\n"


def _cache_usage(cache: PrefixCache) -> float:
    return cache.pinned_blocks / cache.capacity_blocks if cache.capacity_blocks else 0.0


def _texts(given: Any, name: str) -> list[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise BadRequestError(f"{name} is missing or empty")
    if isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [_text(item) for item in given]


def _text(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("text", ""))
    return item if isinstance(item, str) else " ".join(map(str, item))


def _unit(text: str, seed: int = 0) -> float:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed) / 2**64


def _usage(texts: Sequence[str]) -> dict[str, int]:
    tokens = sum(map(token_count, texts))
    return {"prompt_tokens": tokens, "total_tokens": tokens}
