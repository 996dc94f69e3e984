"""The commands. Composes everything; nobody imports it."""
