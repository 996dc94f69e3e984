"""`python -m router_core` is `router-core`."""

import sys

from router_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
