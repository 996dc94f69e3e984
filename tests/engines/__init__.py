"""The router before real inference engines."""
