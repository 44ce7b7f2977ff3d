"""Ollama's HTTP API as far as the lab uses it, as strict as the real one (0.33; sources: docs/decisions.md)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import MODELS, Reply, Request, as_json, completion

CREATE_KEYS = {"model", "files", "parameters", "stream", "from", "template", "system", "license", "messages"}
INTEGER_PARAMETERS = {"num_ctx", "num_predict", "top_k", "seed"}


@dataclass
class FakeOllama:
    """Answers one request after another; what it holds can be looked at afterwards."""

    version: str = "0.33.0"
    template_match: str | None = None
    """A built-in template that `create` takes for the GGUF's, as Ollama does by edit distance."""
    create_error: str | None = None
    cut_short: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, request: Request) -> Reply:
        if request.path == "/api/version":
            return as_json({"version": self.version})
        if request.path.startswith("/api/blobs/"):
            return self.blob(request)
        if (request.method, request.path) == ("POST", "/api/create"):
            return self.create(request)
        if request.path == "/v1/models":
            return as_json(MODELS)
        if (request.method, request.path) == ("POST", "/v1/chat/completions"):
            return self.chat(request)
        return as_json({"error": "404 page not found"}, 404)

    def blob(self, request: Request) -> Reply:
        digest = request.path.removeprefix("/api/blobs/")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return as_json({"error": "invalid digest format"}, 400)
        if request.method == "HEAD":
            return Reply(200 if digest in self.blobs else 404)
        got = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
        if got != digest:
            return as_json({"error": f'digest mismatch, expected "{digest}", got "{got}"'}, 400)
        self.blobs[digest] = request.body
        return Reply(201)

    def create(self, request: Request) -> Reply:
        body = request.json
        unknown = set(body) - CREATE_KEYS
        assert not unknown, f"Ollama has no field {unknown}"
        if not re.fullmatch(r"[\w.-]+(:[\w.-]+)?", body.get("model", "")):
            return as_json({"error": "invalid model name"}, 400)
        if "from" not in body and "files" not in body:
            return as_json({"error": "neither 'from' or 'files' was specified"}, 400)
        if any(name.startswith("/") or ".." in name for name in body["files"]):
            return as_json({"error": "file path must be relative"}, 400)
        return Reply(200, "".join(json.dumps(event) + "\n" for event in self.events(body)).encode())

    def events(self, body: dict[str, Any]) -> list[dict[str, str]]:
        events = [{"status": "parsing GGUF"}]
        for digest in body["files"].values():
            if digest not in self.blobs:
                path = digest.replace(":", "-")
                return [*events, {"error": f"open /root/.ollama/models/blobs/{path}: no such file or directory"}]
            if not self.blobs[digest].startswith(b"GGUF"):
                return [*events, {"error": "unknown type"}]
        for name in INTEGER_PARAMETERS & set(body.get("parameters", {})):
            assert isinstance(body["parameters"][name], int), name
        if self.create_error:
            return [*events, {"error": self.create_error}]
        if self.template_match:
            events.append({"status": f"using autodetected template {self.template_match}"})
        if self.cut_short:
            return [*events, {"status": "verifying conversion"}]
        self.models[body["model"]] = body
        return [*events, {"status": "verifying conversion"}, {"status": "writing manifest"}, {"status": "success"}]

    def chat(self, request: Request) -> Reply:
        if request.json["model"] not in self.models:
            return as_json({"error": {"message": f"model '{request.json['model']}' not found", "code": None}}, 404)
        return as_json(completion({"content": "Hello"}))
