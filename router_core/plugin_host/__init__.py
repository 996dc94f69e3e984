"""Finds other people's plugins, checks them and calls them. Knows the contract and nothing else of the router."""
