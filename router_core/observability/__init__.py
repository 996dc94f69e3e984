"""What the router tells its operators: metrics, logs, traces, and which signals have died."""
