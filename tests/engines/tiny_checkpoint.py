"""A tiny Llama as a folder in Hugging Face's layout: configuration and tokenizer, no weights.

Whoever needs weights makes them up (`--load-format dummy`), equal ones each time.
"""

from __future__ import annotations

import json
from pathlib import Path

from .tiny_tokenizer import CHAT_TEMPLATE, CONTEXT_TOKENS, SPECIAL_TOKENS, train_tokenizer

_BOS, _EOS, _PAD, *_ = SPECIAL_TOKENS


def write_tiny_checkpoint(folder: Path) -> Path:
    """Write the folder and return it."""
    tokenizer = train_tokenizer()
    ids = {"bos_token_id": tokenizer.token_to_id(_BOS), "eos_token_id": tokenizer.token_to_id(_EOS)}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        model_max_length=CONTEXT_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )
    _write(folder / "generation_config.json", **ids)
    _write(
        folder / "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # what vLLM's attention on the CPU wants
        hidden_act="silu",
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        torch_dtype="float32",
        **ids,
    )
    return folder


def _write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content, indent=2))
