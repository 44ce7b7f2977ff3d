"""Puts a GGUF into a running Ollama through its HTTP API.

Reads one GGUF; writes a model into Ollama's store. The file is uploaded by digest and never named by path: a path that
Ollama does not find is taken for a name and pulled from a registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import GateError, LabError, UsageError
from lab.progress import progress
from lab.store import file_hash

if TYPE_CHECKING:
    import httpx

MIN_VERSION = (0, 30)  # the first that renders the GGUF's own chat template for every model (llama-server underneath)
BLOCK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


def find_version(host: str) -> str | None:
    """The version of the server at `host`; None where no Ollama answers."""
    import httpx

    try:
        answer = httpx.get(f"{host.rstrip('/')}/api/version", timeout=2.0)
        return str(answer.raise_for_status().json()["version"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None  # nothing there, or a server of another kind


def is_new_enough(version: str) -> bool:
    """Whether this version renders the chat template of the GGUF (`0.0.0` is a build from source)."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return numbers >= MIN_VERSION or version.startswith("0.0.0")


def create(host: str, gguf_path: Path, model: str, parameters: Mapping[str, object]) -> str:
    """Upload the file, create or replace the model and return its name; raises LabError with Ollama's own words."""
    import httpx

    if not _NAME.fullmatch(model):
        raise UsageError(
            f"Ollama takes no model named {model!r}",
            where="LLM_SERVE__MODEL_NAME, LLM_TRAINING__OUTPUT_DIR",
            mend="use letters, digits, `.`, `_` and `-`",
        )
    with _readable_errors(host), httpx.Client(base_url=host, timeout=httpx.Timeout(30.0, read=600.0)) as client:
        digest = f"sha256:{file_hash(gguf_path)}"
        _upload(client, gguf_path, digest)
        _create(client, model, {gguf_path.name: digest}, parameters)
    return model


def _upload(client: httpx.Client, gguf_path: Path, digest: str) -> None:
    # HEAD first: for a blob that it has, POST answers at once without reading, and a large upload ends in a reset.
    if client.head(f"/api/blobs/{digest}").status_code == 200:
        return
    size = gguf_path.stat().st_size
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    answer = client.post(f"/api/blobs/{digest}", content=_blocks(gguf_path, size), headers=headers)
    if answer.status_code not in {200, 201}:
        raise LabError(f"Ollama refuses the file: {_message(answer)}", where=str(gguf_path))


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    with progress("upload to Ollama (MB)", size >> 20) as advance, path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block
            advance(len(block) >> 20)


def _create(client: httpx.Client, model: str, files: Mapping[str, str], parameters: Mapping[str, object]) -> None:
    body = {"model": model, "files": dict(files), "parameters": dict(parameters), "stream": True}
    status = ""
    with client.stream("POST", "/api/create", json=body) as answer:
        if answer.status_code != 200:
            answer.read()
            raise _failed(model, _message(answer))
        for line in filter(None, answer.iter_lines()):
            event = json.loads(line)
            if "error" in event:  # with HTTP 200, since the stream had begun
                raise _failed(model, event["error"])
            status = event["status"]
            _refuse_other_template(model, status)
    if status != "success":
        raise _failed(model, f"its answer ends with {status!r}")


def _refuse_other_template(model: str, status: str) -> None:
    if status.startswith("using autodetected template"):
        raise GateError(
            f"Ollama takes another chat template than the trained one ({status.removeprefix('using ')})",
            where=model,
            mend="start Ollama with OLLAMA_GO_TEMPLATE=0, or serve with LLM_SERVE__BACKEND=embedded",
        )


def _failed(model: str, message: str) -> LabError:
    return LabError(f"Ollama did not create the model: {message}", where=model)


def _message(answer: httpx.Response) -> str:
    try:
        body: Any = answer.json()
        return str(body["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


@contextmanager
def _readable_errors(host: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LabError(
            f"Ollama broke off: {error}", where=host, mend="is it running? see LLM_SERVE__OLLAMA_HOST"
        ) from None
