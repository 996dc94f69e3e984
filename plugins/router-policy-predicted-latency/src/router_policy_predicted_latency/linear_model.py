"""Least squares over three figures, fed one observation at a time and forgetting old ones. Knows nothing of routers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

Features: TypeAlias = tuple[float, float, float]

_RELATIVE_NOISE = 0.15
"""How far an observation is off, as a share of what was predicted: long ones count less for each second."""

_ROUNDS = 30
_FLEET_WEIGHT = 30.0
"""Observations that the whole fleet's evidence counts for at most: a worker's own prevails soon."""

_OUTLIER = 4.0
"""An observation counts as at most so many times what was expected; a worker's very first not at all then."""

_ENOUGH_SURPRISES = 3
_SURPRISED = 1 / 16
_SCALE_SHARE = 0.005

_FRESH_S = 10.0
_STALE_S = 15.0
"""How long what was seen is believed without anything new, and in what time after that it fades."""

_FADED = 0.01
_KEPT = 0.1
"""Share of its evidence that a worker keeps at least when it is heard of again: it was right about a slow one."""

_EAGER = 30
_SOLVE_EVERY = 8
"""The first observations change the estimate at once, later ones a few together."""


class Evidence:
    """The normal equations of weighted observations: sums that can be added and can fade.

    Attributes:
        count: Observations, those that faded counting less.
    """

    __slots__ = ("count", "aa", "ab", "ac", "bb", "bc", "cc", "ay", "by", "cy")

    def __init__(self) -> None:
        self.count = 0.0
        self.aa = self.ab = self.ac = self.bb = self.bc = self.cc = 0.0
        self.ay = self.by = self.cy = 0.0

    def observe(self, features: Features, value: float, *, noise: float, keep: float = 1.0) -> None:
        """Add an observation.

        Args:
            features: What was given.
            value: What came out.
            noise: How far off it may be.
            keep: What all earlier observations are multiplied with.
        """
        a, b, c = features
        weight = 1 / (noise * noise)
        wa, wb, wc = weight * a, weight * b, weight * c
        self.count = self.count * keep + 1
        self.aa = self.aa * keep + wa * a
        self.ab = self.ab * keep + wa * b
        self.ac = self.ac * keep + wa * c
        self.bb = self.bb * keep + wb * b
        self.bc = self.bc * keep + wb * c
        self.cc = self.cc * keep + wc * c
        self.ay = self.ay * keep + wa * value
        self.by = self.by * keep + wb * value
        self.cy = self.cy * keep + wc * value

    def fade(self, keep: float) -> None:
        """Multiply all that was observed with `keep`."""
        for name in self.__slots__:
            setattr(self, name, keep * getattr(self, name))


class Guess:
    """What to expect of anyone before anything was seen.

    Attributes:
        coefficients: The guess.
        evidence: As if it had been seen, in a few observations.
    """

    __slots__ = ("coefficients", "evidence")

    def __init__(
        self, coefficients: Features, points: tuple[Features, ...], *, noise_floor: float, count: float
    ) -> None:
        """Make it up.

        Args:
            coefficients: The guess.
            points: Where it is thought to hold.
            noise_floor: How far off an observation is at least.
            count: How many observations all points together count for.
        """
        self.coefficients = coefficients
        self.evidence = Evidence()
        for features in points:
            value = _dot(coefficients, features)
            noise = (noise_floor + _RELATIVE_NOISE * value) * (len(points) / count) ** 0.5
            self.evidence.observe(features, value, noise=noise)


class Fleet:
    """What all workers of a pool have seen together.

    Attributes:
        evidence: Their observations, each as a multiple of its worker's scale.
        log_scale: How much slower than guessed they are, as a logarithm; a running mean.
        seen: Observations so far.
    """

    __slots__ = ("evidence", "log_scale", "seen")

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.log_scale = 0.0
        self.seen = 0


class LinearModel:
    """value = a*x + b*y + c*z for one worker, leaning on its peers and on a first guess while it has seen little.

    Its scale is learned first: what peers and guess say is taken for a matter of proportion, since engines differ more
    in speed than in shape.

    Attributes:
        coefficients: The latest estimate of a, b and c; none is negative.
        seen: Observations so far.
    """

    __slots__ = (
        "coefficients",
        "seen",
        "_own",
        "_fleet",
        "_guess",
        "_noise_floor",
        "_keep",
        "_log_scale",
        "_scale_count",
        "_surprises",
        "_unfed_s",
        "_trust",
        "_kept",
        "_fleet_seen",
    )

    def __init__(self, guess: Guess, fleet: Fleet, *, noise_floor: float, keep: float) -> None:
        """Begin with what the fleet knows.

        Args:
            guess: What to expect.
            fleet: What all workers share; this one adds to it.
            noise_floor: How far off an observation is at least.
            keep: What evidence is multiplied with at each new observation.
        """
        self._own = Evidence()
        self._fleet = fleet
        self._guess = guess
        self._noise_floor = noise_floor
        self._keep = keep
        self._log_scale = fleet.log_scale
        self._scale_count = 0.0
        self._surprises = 0
        self._unfed_s = 0.0
        self._trust = 1.0
        self._kept = 1.0
        self._fleet_seen = fleet.seen
        self.seen = 0
        self.coefficients: Features = (0.0, 0.0, 0.0)
        self._solve()

    def predict(self, features: Features) -> float:
        """Return the value to expect."""
        return _dot(self.coefficients, features)

    def learn(self, features: Features, value: float) -> None:
        """Take in an observation; one that is wildly off moves the estimate, but only so far."""
        self.ask()
        self._unfed_s = 0.0
        if self._kept < 1:
            self._own.fade(self._kept)
            self._scale_count *= self._kept
            self._kept = 1.0
        expected = self.predict(features)
        if self.seen < _EAGER:
            expected = max(expected, math.exp(self._log_scale) * _dot(self._guess.coefficients, features))
        limit = _OUTLIER * (expected + self._noise_floor)
        # An engine's very first prefill often takes long and says nothing. A later one is an accident, several
        # in a row mean that what was seen before is of no use any more.
        self._surprises = self._surprises + 1 if value > limit else 0
        if self._surprises == 1 and not self.seen:
            return
        if self._surprises >= _ENOUGH_SURPRISES:
            self._own.fade(_SURPRISED)
        self._learn_scale(features, value)
        value = min(value, limit)
        noise = self._noise_floor + _RELATIVE_NOISE * max(expected, value)
        self._own.observe(features, value, noise=noise, keep=self._keep)
        scale = math.exp(self._log_scale)
        self._fleet.evidence.observe(features, value / scale, noise=noise / scale, keep=self._keep)
        self.seen += 1
        if self.seen <= _EAGER or self.seen % _SOLVE_EVERY == 0:
            self._solve()

    def age(self, seconds: float) -> bool:
        """Time passed without an observation: one slower than its peers is believed like them little by little.

        Nobody would find out otherwise that it has become faster. While its peers see nothing either, nothing changes.

        Returns:
            Whether the estimate changed.
        """
        if not self.seen:  # nor has a known model
            return False
        fleet = self._fleet
        if fleet.seen == self._fleet_seen:
            return False
        self._fleet_seen = fleet.seen
        self._unfed_s += seconds
        if self._unfed_s <= _FRESH_S or self._trust < _FADED:
            return False
        self._trust = math.exp((_FRESH_S - self._unfed_s) / _STALE_S)
        self._solve()
        return True

    def ask(self) -> None:
        """Believe again what was known until there is an answer: a single request is to find out, not a burst."""
        if self._trust < 1:
            self._kept = max(_KEPT, self._trust)
            self._trust = 1.0
            self._unfed_s = 0.0
            self._solve()

    def _learn_scale(self, features: Features, value: float) -> None:
        floor = self._noise_floor
        ratio = math.log((value + floor) / (_dot(self._guess.coefficients, features) + floor))
        fleet = self._fleet
        fleet.seen += 1
        fleet.log_scale += max(_SCALE_SHARE, 1 / fleet.seen) * (ratio - fleet.log_scale)
        self._scale_count = min(self._scale_count + 1, 1 / _SCALE_SHARE)
        self._log_scale += (ratio - self._log_scale) / max(1.0, self._scale_count)

    def _solve(self) -> None:
        fleet = self._fleet
        slower = max(0.0, self._log_scale - fleet.log_scale)
        log_trusted = self._log_scale - (1 - self._trust) * slower
        scale = math.exp(log_trusted)
        count = fleet.evidence.count
        share = min(1.0, _FLEET_WEIGHT / count) if count else 0.0
        evidence = (
            (self._own, self._trust, math.exp(log_trusted - self._log_scale)),
            (fleet.evidence, share, scale),
            (self._guess.evidence, 1.0, scale),
        )
        self.coefficients = _solve(evidence, self.coefficients)


class KnownModel(LinearModel):
    """A model whose coefficients were given: it learns nothing."""

    __slots__ = ()

    def __init__(self, coefficients: Features) -> None:
        self.coefficients = coefficients
        self.seen = 0

    def learn(self, features: Features, value: float) -> None:
        """Do nothing."""

    def ask(self) -> None:
        """Do nothing."""


def _dot(coefficients: Features, features: Features) -> float:
    return sum(each * feature for each, feature in zip(coefficients, features, strict=True))


def _solve(evidence: Iterable[tuple[Evidence, float, float]], start: Features) -> Features:
    """Return the coefficients, none negative, that explain several bodies of evidence best.

    Args:
        evidence: Each with its weight, and with a factor that all its values and their noise are multiplied with.
        start: Coefficients that may be near.
    """
    aa = ab = ac = bb = bc = cc = ay = by = cy = 0.0
    for each, share, scale in evidence:
        weight = share / scale  # for values; for products of features once more
        ay += weight * each.ay
        by += weight * each.by
        cy += weight * each.cy
        weight /= scale
        aa += weight * each.aa
        ab += weight * each.ab
        ac += weight * each.ac
        bb += weight * each.bb
        bc += weight * each.bc
        cc += weight * each.cc
    # Coordinate descent from the last estimate: short, and it keeps all three from going negative.
    a, b, c = start
    for _ in range(_ROUNDS):
        b = max(0.0, (by - ab * a - bc * c) / bb) if bb else 0.0
        c = max(0.0, (cy - ac * a - bc * b) / cc) if cc else 0.0
        a = max(0.0, (ay - ab * b - ac * c) / aa) if aa else 0.0
    return a, b, c
