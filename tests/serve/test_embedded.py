"""The embedded llama.cpp server, with a real GGUF and the real client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lab import serve
from lab.config import Settings
from lab.endpoint import Endpoint
from lab.errors import LabError
from lab.serve import embedded
from lab.tokens import load_renderer
from tests.tiny_run import TOOL, make_chat

pytestmark = [pytest.mark.torch, pytest.mark.llama_cpp]


def test_each_request_has_the_whole_context_and_the_ggufs_own_template(quantized_settings: Settings) -> None:
    run_dir = quantized_settings.run_dir
    with serve.start(quantized_settings) as serving:
        root = serving.url.removesuffix("/v1")
        assert [slot["n_ctx"] for slot in httpx.get(f"{root}/slots").json()] == [256, 256]
        request = {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
        rendered = httpx.post(f"{root}/apply-template", json=request).json()["prompt"]
        assert json.loads((run_dir / "serving.json").read_text())["url"] == serving.url
    assert rendered.startswith("<|im_start|>system\n<tools>")
    assert not (run_dir / "serving.json").exists()


def test_the_prompt_has_as_many_tokens_as_in_training(quantized_settings: Settings) -> None:
    chat = make_chat(0)
    renderer = load_renderer(quantized_settings, str(quantized_settings.run_dir / "merged"))
    with serve.start(quantized_settings) as serving:
        messages = renderer.served_messages(chat, 1)
        body = {"model": serving.model, "messages": messages, "max_tokens": 1}
        usage = httpx.post(f"{serving.url}/chat/completions", json=body).json()["usage"]
        answer = Endpoint(serving.url, serving.model).chat(messages, max_tokens=3, temperature=0.0)
    chat_without_tools = chat.model_copy(update={"tools": []})
    assert usage["prompt_tokens"] == len(renderer.prompt_ids(chat_without_tools, 1))
    assert answer.finish_reason in {"length", "stop"}


def test_a_port_that_is_taken_is_one_line(quantized_settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(LabError, match=r"LLM_SERVE__PORT: cannot listen on .*Address already in use"):
            embedded.need_free("127.0.0.1", other.getsockname()[1])


def test_a_file_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with (
        pytest.raises(LabError, match=r"x.gguf: llama.cpp cannot load it"),
        embedded.serving(tmp_path / "x.gguf", host="127.0.0.1", port=0, model="m", context_length=64, num_parallel=1),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(quantized_settings: Settings, number: signal.Signals) -> None:
    code = (
        "import sys\nfrom lab import config, serve\n"
        "data = {'data_dir': sys.argv[1], 'max_length': 256}\n"
        "serving = {'backend': 'embedded', 'quant': 'Q8_0', 'port': 0}\n"
        "serve.run(config.load({'data': data, 'training': {'output_dir': 'runs/demo'}, 'serve': serving}))"
    )
    command = [sys.executable, "-c", code, str(quantized_settings.data.data_dir)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                process.send_signal(number)
        assert process.wait() == 0
    assert "the embedded llama.cpp server, as LLM_SERVE__BACKEND says" in said[0]
    assert not (quantized_settings.run_dir / "serving.json").exists()
