"""`router-core simulate` and `router-core trace`."""
