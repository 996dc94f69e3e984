"""The data plane: bytes in, bytes out. It knows nothing of policies, nor what a worker is for."""
