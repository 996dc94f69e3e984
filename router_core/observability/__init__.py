"""What the router tells its operators: metrics and logs."""
