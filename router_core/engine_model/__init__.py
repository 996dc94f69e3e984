"""A model of an inference engine: its prefix cache and the time of its steps. Pure: no I/O, no clock, no randomness."""
