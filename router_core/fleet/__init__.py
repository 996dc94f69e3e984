"""Who the workers are and how they are: pool, ledger, health, circuits, telemetry, membership."""
