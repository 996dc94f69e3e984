"""Sustained load: engines, router and clients each in a process of their own."""
