from __future__ import annotations

import asyncio

import aiohttp

from router_core.testing.engine_process import EngineProcess

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def test_legs_meet_across_processes():
    async with (
        EngineProcess("--pd", "sglang", "--role", "prefill") as prefills,
        EngineProcess("--pd", "sglang", "--role", "decode", "--count", "2") as decodes,
        aiohttp.ClientSession() as session,
    ):
        assert len(decodes.bootstrap_ports) == 2
        host = {"bootstrap_host": "127.0.0.1", "bootstrap_port": prefills.bootstrap_ports[0]}

        async def status(url: str, room: int) -> int:
            body = CHAT | host | {"bootstrap_room": room}
            async with session.post(url + "/v1/chat/completions", json=body) as response:
                await response.read()
                return response.status

        legs = [(url, room) for room, decode in enumerate(decodes.urls) for url in (prefills.urls[0], decode)]
        assert await asyncio.gather(*(status(*leg) for leg in legs)) == [200] * 4
        async with session.get(prefills.urls[0] + "/simulated/counters") as response:
            counters = await response.json()
    assert (counters["transfers"], counters["held"], counters["stranded"]) == (2, 0, 0)
