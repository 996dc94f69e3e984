"""One request's life: select, reserve, forward, complete."""
