"""The words everybody shares: worker, request, outcome, hooks. No I/O, no behaviour beyond themselves."""
