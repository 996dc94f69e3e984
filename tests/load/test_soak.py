"""The soak itself is a command; here it runs for a moment, so that it works when somebody wants it."""

from __future__ import annotations

import math

from .soak import Sizes, soak


async def test_a_short_soak_finds_nothing_wrong_and_tells_the_slope(capfd):
    sizes = Sizes(seconds=1, clients=5, policies="cache_aware,lpwl", max_slope=math.inf)

    assert await soak(sizes) == []

    told = capfd.readouterr().out
    assert told.count("bytes a minute") == 2
    assert "'wrong'" not in told
