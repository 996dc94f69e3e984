"""One llama.cpp server: `python llamacpp_server.py MODEL.gguf ALIAS PORT`. Run as a child process by `llamacpp`.

Says its address on stdout once it serves, and lives until its stdin closes: so it cannot outlive whoever started it,
however that one ends.
"""

import sys

import xllamacpp

PARALLEL = 4
CONTEXT_TOKENS = 8192


def main() -> None:
    """Serve until stdin closes."""
    model, alias, port = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.model_alias = [alias]
    parameters.port = int(port)  # on 127.0.0.1; 0: the system picks a free one
    parameters.n_parallel = PARALLEL
    parameters.n_ctx = PARALLEL * CONTEXT_TOKENS  # shared out among the parallel requests
    parameters.n_gpu_layers = 0
    parameters.warmup = False
    parameters.endpoint_metrics = True
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
