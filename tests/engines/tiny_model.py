"""A tiny random Llama as a GGUF file, with a byte-level BPE tokenizer, built from nothing in a second.

No torch, no downloads. What it says is noise; how an engine serves it (batching, prefix cache, streaming) is real.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

from . import tiny_tokenizer
from .tiny_tokenizer import CHAT_TEMPLATE, CONTEXT_TOKENS, MODEL_NAME, SPECIAL_TOKENS, train_tokenizer

_HIDDEN = 128
_LAYERS = 2
_HEADS = 4
_KV_HEADS = 2
_FEED_FORWARD = 256


def cached_tiny_model(cache: Path) -> Path:
    """Return the path of the model file, building it unless this very recipe has been built before.

    Args:
        cache: A folder that survives the test session; made if it is missing.
    """
    model = cache / f"{MODEL_NAME}-{_recipe_key()}.gguf"
    if model.exists():
        return model
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as workshop:
        unfinished = Path(workshop) / model.name
        _build(unfinished)
        unfinished.rename(model)  # atomic: two sessions at once never see half a file
    return model


def _recipe_key() -> str:
    recipe = hashlib.sha256()
    for source in (__file__, tiny_tokenizer.__file__):
        recipe.update(Path(source).read_bytes())
    for distribution in ("gguf", "numpy", "tokenizers"):
        recipe.update(f"{distribution}=={version(distribution)}\n".encode())
    return recipe.hexdigest()[:16]


def _tokens_and_merges() -> tuple[dict[str, int], list[str]]:
    """Return the vocabulary and the merges in GGUF's notation."""
    tokenizer_json = json.loads(train_tokenizer().to_str())
    vocabulary = tokenizer_json["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in tokenizer_json["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer_json["model"]["merges"]]
    return vocabulary, merges


def _build(path: Path) -> None:
    import gguf
    import numpy as np

    vocabulary, merges = _tokens_and_merges()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(path, "llama")

    writer.add_name(MODEL_NAME)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary["<s>"])
    writer.add_eos_token_id(vocabulary["</s>"])
    writer.add_pad_token_id(vocabulary["<pad>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    weights = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return (weights.standard_normal(shape) * 0.05).astype(np.float32)

    ones = np.ones(_HIDDEN, np.float32)
    kv_hidden = _HIDDEN // _HEADS * _KV_HEADS
    writer.add_tensor("token_embd.weight", noise(len(tokens), _HIDDEN))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", noise(len(tokens), _HIDDEN))
    for layer in range(_LAYERS):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", ones)
        writer.add_tensor(block + "attn_q.weight", noise(_HIDDEN, _HIDDEN))
        writer.add_tensor(block + "attn_k.weight", noise(kv_hidden, _HIDDEN))
        writer.add_tensor(block + "attn_v.weight", noise(kv_hidden, _HIDDEN))
        writer.add_tensor(block + "attn_output.weight", noise(_HIDDEN, _HIDDEN))
        writer.add_tensor(block + "ffn_norm.weight", ones)
        writer.add_tensor(block + "ffn_gate.weight", noise(_FEED_FORWARD, _HIDDEN))
        writer.add_tensor(block + "ffn_up.weight", noise(_FEED_FORWARD, _HIDDEN))
        writer.add_tensor(block + "ffn_down.weight", noise(_HIDDEN, _FEED_FORWARD))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
