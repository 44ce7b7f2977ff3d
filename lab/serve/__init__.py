"""Serves the quantized model behind an OpenAI-compatible endpoint: Ollama where it answers, else embedded llama.cpp.

Reads `gguf/NAME-QUANT.gguf` of the run; writes `serving.json` {backend, url, model, quant, sha256}, which is there as
long as the endpoint is: chat and evaluate find it through that file.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import store
from lab.config import Settings
from lab.endpoint import Endpoint
from lab.errors import LabError
from lab.serve import embedded, ollama

SERVING_FILE = "serving.json"


@dataclass(frozen=True)
class Serving:
    """Where the model answers."""

    backend: str
    url: str
    model: str
    quant: str
    sha256: str
    """Of the GGUF."""


def run(settings: Settings) -> None:
    """`lab ollama-serve`: serve, say how to call it; the embedded server runs until Ctrl-C or SIGTERM."""
    stop = threading.Event()
    with _stop_signals(stop), start(settings) as serving:
        print(how_to_call(serving), flush=True)
        if serving.backend == "embedded":
            print("Ctrl-C stops it.", flush=True)
            stop.wait()


@contextmanager
def start(settings: Settings) -> Iterator[Serving]:
    """The served model, health checked; the embedded server and its `serving.json` end with the block."""
    gguf_path = settings.run_dir / "gguf" / f"{settings.run_dir.name}-{settings.serve.quant}.gguf"
    store.need(gguf_path, f"quantize LLM_EXPORT__QUANTS={settings.serve.quant}")
    serving_path = settings.run_dir / SERVING_FILE
    model = f"{settings.serve.model_name}:{settings.run_dir.name}"
    backend = choose_backend(settings)
    sha256 = store.file_hash(gguf_path)
    if backend == "ollama":
        url = _create_in_ollama(settings, gguf_path, model)
        yield _ready(Serving(backend, url, model, settings.serve.quant, sha256), serving_path)
        return
    with embedded.serving(
        gguf_path,
        host=settings.serve.host,
        port=settings.serve.port,
        model=model,
        context_length=settings.data.max_length,
        num_parallel=settings.serve.num_parallel,
    ) as url:
        try:
            yield _ready(Serving(backend, url, model, settings.serve.quant, sha256), serving_path)
        finally:
            serving_path.unlink(missing_ok=True)


def choose_backend(settings: Settings) -> str:
    """`ollama` or `embedded`, said in one line with the reason; raises LabError where Ollama was asked for in vain."""
    host, wanted = settings.serve.ollama_host, settings.serve.backend
    if wanted == "embedded":
        return _say("embedded", "the embedded llama.cpp server, as LLM_SERVE__BACKEND says")
    version = ollama.find_version(host)
    if version is not None and ollama.is_new_enough(version):
        return _say("ollama", f"Ollama {version} at {host}")
    oldest = ".".join(str(number) for number in ollama.MIN_VERSION)
    problem = "no Ollama answers" if version is None else f"Ollama {version} is older than {oldest}"
    if wanted == "ollama":
        raise LabError(problem, where=host, mend="start or update it, or set LLM_SERVE__BACKEND=embedded")
    return _say("embedded", f"the embedded llama.cpp server ({problem} at {host})")


def _say(backend: str, what: str) -> str:
    print(f"serve: {what}", flush=True)
    return backend


def _create_in_ollama(settings: Settings, gguf_path: Path, model: str) -> str:
    parameters = {"num_ctx": settings.data.max_length, "temperature": settings.serve.temperature}
    ollama.create(settings.serve.ollama_host, gguf_path, model, parameters)
    return f"{settings.serve.ollama_host.rstrip('/')}/v1"


def _ready(serving: Serving, serving_path: Path) -> Serving:
    """Ask for one token, so that the weights are loaded and work, then write where it answers."""
    endpoint = Endpoint(serving.url, serving.model)
    endpoint.wait_until_ready()
    endpoint.chat([{"role": "user", "content": "Hello"}], max_tokens=1, temperature=0.0)
    store.write_json(serving_path, asdict(serving))
    return serving


@contextmanager
def _stop_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set the event inside the block: the end of the server's normal life, not an error."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def how_to_call(serving: Serving) -> str:
    """The two usual ways, ready to be pasted."""
    body = json.dumps({"model": serving.model, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0})
    return f"""Serving {serving.model} ({serving.quant}) at {serving.url}

  curl {serving.url}/chat/completions -H 'Content-Type: application/json' -d '{body}'

  from openai import OpenAI
  client = OpenAI(base_url="{serving.url}", api_key="none")
  client.chat.completions.create(model="{serving.model}", messages=[{{"role": "user", "content": "Hello"}}])

  make chat
"""
