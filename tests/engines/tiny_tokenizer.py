"""What every tiny model speaks: made-up prose, a byte-level BPE trained on it, a chat template. No downloads."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL_NAME = "tiny"
CONTEXT_TOKENS = 8192
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_VOCABULARY = 2048
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def write_prose(random_source: random.Random, words: int) -> str:
    """Return that many made-up words, about 1.7 tokens each; equal seeds write equal prose."""
    return " ".join("".join(random_source.choices(_SYLLABLES, k=random_source.randint(1, 4))) for _ in range(words))


def train_tokenizer() -> Tokenizer:
    """Train a byte-level BPE on our own prose; the same one each time."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([write_prose(random.Random(0), 20_000)], trainer)
    return tokenizer
