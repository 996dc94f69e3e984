"""One request's life: may it, when, and then select, reserve, forward, complete."""
