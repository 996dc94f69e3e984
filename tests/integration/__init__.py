"""The whole router before simulated engines, seen from outside."""
