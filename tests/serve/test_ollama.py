"""Putting a GGUF into Ollama, against a loopback server that is as strict as the real one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lab import serve
from lab.config import Settings
from lab.errors import GateError, LabError, UsageError
from lab.serve import ollama
from tests.loopback import Reply, loopback
from tests.serve.fake_ollama import FakeOllama
from tests.tiny_run import settings_of

PARAMETERS = {"num_ctx": 256, "temperature": 0.0}
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "demo" / "gguf" / "demo-Q4_K_M.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF" + bytes(3 << 20))
    return path


def ollama_settings(data_dir: Path, host: str, backend: str = "ollama") -> Settings:
    return settings_of(data_dir, serve={"backend": backend, "ollama_host": host})


def test_a_model_is_made_of_the_uploaded_file(gguf_path: Path) -> None:
    fake = FakeOllama()
    with loopback(fake) as server:
        assert ollama.create(server.url, gguf_path, "lab:demo", PARAMETERS) == "lab:demo"
    digest = f"sha256:{hashlib.sha256(gguf_path.read_bytes()).hexdigest()}"
    assert fake.models["lab:demo"]["files"] == {"demo-Q4_K_M.gguf": digest}
    assert fake.models["lab:demo"]["parameters"] == PARAMETERS
    assert [request.method for request in server.requests] == ["HEAD", "POST", "POST"]


def test_a_file_that_ollama_has_is_not_sent_again(gguf_path: Path) -> None:
    with loopback(FakeOllama()) as server:
        ollama.create(server.url, gguf_path, "lab:demo", PARAMETERS)
        ollama.create(server.url, gguf_path, "lab:demo", PARAMETERS)
    assert [request.method for request in server.requests] == ["HEAD", "POST", "POST", "HEAD", "POST"]


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (FakeOllama(create_error="failed to validate GGUF"), "did not create the model: failed to validate GGUF"),
        (FakeOllama(cut_short=True), "its answer ends with 'verifying conversion'"),
    ],
)
def test_a_failure_that_comes_with_http_200_is_a_failure(gguf_path: Path, fake: FakeOllama, said: str) -> None:
    with loopback(fake) as server, pytest.raises(LabError, match=said):
        ollama.create(server.url, gguf_path, "lab:demo", PARAMETERS)
    assert fake.models == {}


def test_a_template_that_ollama_replaces_is_refused(gguf_path: Path) -> None:
    with loopback(FakeOllama(template_match="chatml")) as server, pytest.raises(GateError, match="template chatml"):
        ollama.create(server.url, gguf_path, "lab:demo", PARAMETERS)


def test_a_name_that_ollama_does_not_take_is_refused_before_the_upload(gguf_path: Path) -> None:
    with pytest.raises(UsageError, match="no model named 'lab:my run'"):
        ollama.create(NOWHERE, gguf_path, "lab:my run", PARAMETERS)


def test_what_ollama_refuses_is_said_in_its_words(gguf_path: Path) -> None:
    def refusing(path: str, reply: Reply) -> LabError:
        fake = FakeOllama()
        with (
            loopback(
                lambda request: reply if path in request.path and request.method == "POST" else fake(request)
            ) as at,
            pytest.raises(LabError) as caught,
        ):
            ollama.create(at.url, gguf_path, "lab:demo", PARAMETERS)
        return caught.value

    mismatch = Reply(400, json.dumps({"error": "digest mismatch"}).encode())
    assert "refuses the file: digest mismatch" in str(refusing("/api/blobs", mismatch))
    assert "did not create the model: HTTP 502" in str(refusing("/api/create", Reply(502, b"<html>")))


def test_a_server_that_goes_away_is_one_line(gguf_path: Path) -> None:
    with pytest.raises(LabError, match=rf"{NOWHERE}: Ollama broke off.*LLM_SERVE__OLLAMA_HOST"):
        ollama.create(NOWHERE, gguf_path, "lab:demo", PARAMETERS)


def test_serving_through_ollama_leaves_where_it_answers(
    gguf_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loopback(FakeOllama()) as server:
        serve.run(ollama_settings(tmp_path, server.url, "auto"))
    said = capsys.readouterr().out
    assert said.startswith(f"serve: Ollama 0.33.0 at {server.url}\n")
    assert f"curl {server.url}/v1/chat/completions" in said
    assert json.loads((tmp_path / "runs" / "demo" / "serving.json").read_text()) == {
        "backend": "ollama",
        "url": f"{server.url}/v1",
        "model": "lab:demo",
        "quant": "Q4_K_M",
        "sha256": hashlib.sha256(gguf_path.read_bytes()).hexdigest(),
    }


def test_auto_takes_the_embedded_server_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.choose_backend(ollama_settings(tmp_path, NOWHERE, "auto")) == "embedded"
    with loopback(FakeOllama(version="0.12.3")) as server:
        assert serve.choose_backend(ollama_settings(tmp_path, server.url, "auto")) == "embedded"
    assert serve.choose_backend(ollama_settings(tmp_path, NOWHERE, "embedded")) == "embedded"
    said = capsys.readouterr().out
    assert "no Ollama answers at http://127.0.0.1:9" in said
    assert "Ollama 0.12.3 is older than 0.30" in said


def test_an_ollama_that_was_asked_for_and_is_missing_or_old_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"{NOWHERE}: no Ollama answers"):
        serve.choose_backend(ollama_settings(tmp_path, NOWHERE))
    with loopback(FakeOllama(version="0.29.9")) as server, pytest.raises(LabError, match=r"older than 0.30"):
        serve.choose_backend(ollama_settings(tmp_path, server.url))


def test_a_server_of_another_kind_is_no_ollama() -> None:
    with loopback(lambda _: Reply(200, b"<html>")) as server:
        assert ollama.find_version(server.url) is None
    assert ollama.find_version("not a url") is None


def test_nothing_quantized_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`make quantize LLM_EXPORT__QUANTS=Q4_K_M` writes it"):
        serve.run(ollama_settings(tmp_path, NOWHERE))
