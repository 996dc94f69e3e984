"""`router-core launch`: the flags, defaults and Python arguments of sglang-router 0.3.2, on this router's settings."""
