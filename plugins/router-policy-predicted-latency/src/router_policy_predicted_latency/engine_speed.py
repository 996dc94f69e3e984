"""How fast workers are, learned for each from what it did; a first guess and its peers' speed for one that is new.

A prefill takes a + b * (new tokens) + c * (pairs of a new token and one it attends to), a decode step
a + b * (sequences) + c * (tokens of their context). Tokens are the router's estimates, so the constants also hold
whatever a real tokenizer makes of them, and how much the rest of an engine's work slows it down.
"""

from __future__ import annotations

from router_policy_predicted_latency.linear_model import Features, Fleet, Guess, KnownModel, LinearModel

# An 8B model on a card of 2023. Two or three observations outweigh it, so that other models are met soon.
_PREFILL_GUESS: Features = (4e-3, 60e-6, 1.1e-9)
_DECODE_GUESS: Features = (7e-3, 25e-6, 60e-9)
_PREFILL_GUESS_COUNT = 2.0
_DECODE_GUESS_COUNT = 3.0
_PREFILL_POINTS: tuple[Features, ...] = (
    (1.0, 100.0, 5e3),
    (1.0, 1_000.0, 1e6),
    (1.0, 4_000.0, 4e7),
    (1.0, 16_000.0, 3e8),
    (1.0, 2_000.0, 1.5e8),
    (1.0, 60_000.0, 1.8e9),
)
_DECODE_POINTS: tuple[Features, ...] = (
    (1.0, 1.0, 1e3),
    (1.0, 10.0, 2e4),
    (1.0, 40.0, 2e5),
    (1.0, 100.0, 2e5),
    (1.0, 20.0, 8e5),
)
_PREFILL_NOISE_S = 0.02
_DECODE_NOISE_S = 0.003
_KEEP = 0.998
"""Evidence fades by half in about 350 observations."""


class EngineSpeeds:
    """Makes the models of one pool's workers, which share what they learn."""

    def __init__(self, prefill: Features | None = None, decode: Features | None = None) -> None:
        """Begin without experience.

        Args:
            prefill: What a prefill takes, if it is known.
            decode: What a decode step takes, if it is known.
        """
        self._known_prefill = prefill
        self._known_decode = decode
        self._prefill_fleet = Fleet()
        self._decode_fleet = Fleet()

    def prefill_model(self) -> LinearModel:
        """Return a new worker's model of prefills."""
        if self._known_prefill is not None:
            return KnownModel(self._known_prefill)
        guess = Guess(_PREFILL_GUESS, _PREFILL_POINTS, noise_floor=_PREFILL_NOISE_S, count=_PREFILL_GUESS_COUNT)
        return LinearModel(guess, self._prefill_fleet, noise_floor=_PREFILL_NOISE_S, keep=_KEEP)

    def decode_model(self) -> LinearModel:
        """Return a new worker's model of decode steps."""
        if self._known_decode is not None:
            return KnownModel(self._known_decode)
        guess = Guess(_DECODE_GUESS, _DECODE_POINTS, noise_floor=_DECODE_NOISE_S, count=_DECODE_GUESS_COUNT)
        return LinearModel(guess, self._decode_fleet, noise_floor=_DECODE_NOISE_S, keep=_KEEP)
