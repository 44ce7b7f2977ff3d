"""The embedded llama.cpp server (xllamacpp), for machines without Ollama.

Reads one GGUF; writes nothing. It loads the file in this process and answers OpenAI's endpoints with the chat template
that the GGUF holds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import LabError

ERRORS_ONLY = 1  # llama.cpp's log level


@contextmanager
def serving(
    gguf_path: Path, *, host: str, port: int, model: str, context_length: int, num_parallel: int
) -> Iterator[str]:
    """Serve the file until the block ends; yields the endpoint's url. Port 0 takes a free one.

    `context_length` is in tokens for each of the `num_parallel` requests. Raises LabError where the port is taken or
    the file does not load.
    """
    need_free(host, port)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_path)
    params.model_alias = {model}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = num_parallel
    params.n_ctx = context_length * num_parallel  # llama.cpp divides it among its slots
    params.use_jinja = True
    params.ui = False
    params.verbosity = ERRORS_ONLY
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise LabError(
            f"llama.cpp cannot load it: {error}",
            where=str(gguf_path),
            mend="`make quantize LLM_FORCE=true` writes it again",
        ) from None
    yield f"{server.listening_address}/v1"
    del server  # its destructor stops the threads and closes the port


def need_free(host: str, port: int) -> None:
    """Raise LabError where the port is taken; llama.cpp itself only says that it failed to start."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LabError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                where="LLM_SERVE__PORT",
                mend="stop what listens there, or set another port",
            ) from None
