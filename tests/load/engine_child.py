"""Run as a script: simulated engines that print their URLs, then their counters each time a line comes in.

python engine_child.py '{"count": 4, "tokens": 16, "ttft_s": 0.02, "token_interval_s": 0.1}'
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import uvloop

from router_core.testing.simulated_engine import simulated_engines


async def main() -> None:
    knobs = json.loads(sys.argv[1])
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with simulated_engines(knobs.pop("count"), cache_tokens=0, kept_requests=0, **knobs) as engines:
        print(json.dumps([engine.url for engine in engines]), flush=True)
        while await reader.readline():
            print(json.dumps({engine.url: engine.counters() for engine in engines}), flush=True)


if __name__ == "__main__":
    logging.disable()  # clients that leave while a head is being written are no news here
    uvloop.run(main())
