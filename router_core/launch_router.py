"""Start a router from Python with the arguments of sglang-router: `RouterArgs`, `launch_router`.

What stands before `launch_router` in an import is all that changes:

    from router_core.launch_router import RouterArgs, launch_router
    launch_router(RouterArgs(worker_urls=["http://10.0.0.1:8000"], policy="cache_aware"))

`python -m router_core.launch_router` is `router-core launch`.
"""

from __future__ import annotations

import sys

from router_core.cli.launch.command import launch_router
from router_core.cli.launch.router_args import RouterArgs
from router_core.cli.main import main

__all__ = ["RouterArgs", "launch_router"]

if __name__ == "__main__":
    sys.exit(main(["launch", *sys.argv[1:]]))
