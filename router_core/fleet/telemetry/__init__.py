"""What engines say of their own load: polled, parsed, and noted in `worker.engine`."""
