"""demo: the whole way on the sample data, by the very commands that a user types one by one.

Reads the committed samples, writes what the stages write, then reports/demo. Each stage is a process of its own;
llama.cpp is built beside them, at low priority, where it is not there yet.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import config
from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat, Prediction
from lab.store import Outcome, Step, current, finish, read_json, read_jsonl, write_json

PINNED = {
    "LLM_ENV_FILE": "",
    "LLM_MODEL__BASE_MODEL": config.TINY,
    "LLM_DATA__TRAIN_FILES": "samples/sessions/agent-session-*.jsonl",
    "LLM_DATA__EVAL_FILES": "[]",
    "LLM_TRAINING__OUTPUT_DIR": "runs/demo",
    "LLM_SERVE__QUANT": "Q4_K_M",
}
STAGES = ("pretrain", "extract", "format", "check-data", "train", "evaluate", "merge", "quantize")


def run(_settings: Settings) -> None:
    """Every stage in turn; up-to-date ones do nothing."""
    started = time.time()
    environment = demo_environment()
    settings = load_pinned(environment)
    with llama_build(environment, settings):
        for stage in STAGES:
            run_stage(stage, environment)
    if not is_served(settings):
        with served(environment, settings):
            run_stage("evaluate", environment, "--evaluate.contenders", "quantized")
            print(chat_once(settings).summary(), flush=True)
    run_stage("report", environment)
    show(settings, time.time() - started)


def demo_environment() -> dict[str, str]:
    """The environment of the stages: the caller's, with what makes it the demo pinned. `.env` is not read."""
    for name, value in PINNED.items():
        if os.environ.get(name, value) != value:
            print(f"demo: {name} is set; the demo uses {value or 'none'!r}", file=sys.stderr)
    return {**os.environ, **PINNED}


def load_pinned(environment: dict[str, str]) -> Settings:
    """The settings that the stages will see."""
    os.environ.update(environment)
    return config.load()


def run_stage(stage: str, environment: dict[str, str], *flags: str) -> None:
    """One `lab` command; its failure ends the demo with its own exit code and message."""
    process = subprocess.Popen([sys.executable, "-m", "lab", stage, *flags], env=environment)
    try:
        code = process.wait()
    finally:
        stop(process)
    if code != 0:
        error = LabError(f"stage {stage} ended with exit code {code}", where="demo", mend=f"`lab {stage}` repeats it")
        error.exit_code = code if code in (2, 3) else 1
        raise error


@contextmanager
def llama_build(environment: dict[str, str], settings: Settings) -> Iterator[None]:
    """Find or build llama.cpp while the block runs; quantize waits for it where it must."""
    log_path = settings.path("logs/build-llama.log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log_file:
        build = subprocess.Popen(
            [sys.executable, "-m", "lab", "build-llama"], env=environment, stdout=log_file, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            stop(build)


@contextmanager
def served(environment: dict[str, str], settings: Settings) -> Iterator[None]:
    """The quantized model behind an endpoint while the block runs."""
    serving_path = settings.run_dir / "serving.json"
    serving_path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lab", "ollama-serve", "--serve.port", str(free_port())]
    server = subprocess.Popen(command, env=environment)
    try:
        while not serving_path.exists():
            if server.poll() not in (None, 0):
                raise LabError("the model could not be served", where="demo", mend="`make ollama-serve` repeats it")
            time.sleep(0.1)
        yield
    finally:
        stop(server)
        serving_path.unlink(missing_ok=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child in an orderly way, and wait for it."""
    if process.poll() is None:
        process.terminate()
    process.wait()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# --- one chat with a tool call ---------------------------------------------------------------------------------------


def chat_step(settings: Settings) -> Step:
    """What the served chat depends on."""
    gguf = settings.run_dir / "gguf" / f"{settings.run_dir.name}-{settings.serve.quant}.gguf"
    inputs = [gguf, settings.path("dataset/eval.jsonl"), settings.run_dir / "evaluation" / "quantized.jsonl"]
    return Step(
        "serve", settings.run_dir / "served_chat.manifest.json", inputs, {"quant": settings.serve.quant}, ("demo.py",)
    )


def is_served(settings: Settings) -> bool:
    """Whether the served model has been evaluated and talked to, with nothing changed since."""
    from lab.evaluate import is_current

    return is_current(settings, "quantized") and current(chat_step(settings)) is not None


def chat_once(settings: Settings) -> Outcome:
    """Send a held-out request with tools through the openai client, show and keep the parsed tool calls."""
    from lab.endpoint import Endpoint
    from lab.tokens import load_renderer

    started = time.time()
    serving = read_json(settings.run_dir / "serving.json")
    chat, turn = held_out_request(settings)
    renderer = load_renderer(settings)
    messages, tools = renderer.served_messages(chat, turn), renderer.served_tools(chat)
    answer = Endpoint(serving["url"], serving["model"]).chat(
        messages, tools, max_tokens=settings.evaluate.max_new_tokens, temperature=0.0
    )
    print(f"user: {messages[-1]['content']}")
    for call in answer.calls:
        print(f"tool call: {call['name']}({call['arguments']})")
    record: dict[str, Any] = {
        **{key: serving[key] for key in ("backend", "url", "model")},
        "messages": messages,
        "tools": tools,
        "content": answer.content,
        "tool_calls": answer.calls,
    }
    chat_path = settings.run_dir / "served_chat.json"
    write_json(chat_path, record)
    outcome = Outcome("serve", 1, 1, outputs=[chat_path], note=f"{serving['backend']}, {len(answer.calls)} tool calls")
    return finish(chat_step(settings), outcome, started)


def held_out_request(settings: Settings) -> tuple[Chat, int]:
    """The first held-out request whose logged answer is a tool call and which the served model answered with one."""
    predictions = list(read_jsonl(settings.run_dir / "evaluation" / "quantized.jsonl", Prediction))
    asked = [prediction for prediction in predictions if prediction.exact is not None]
    chosen = next((prediction for prediction in asked if prediction.calls), asked[0] if asked else predictions[0])
    chats = {chat.id: chat for chat in read_jsonl(settings.path("dataset/eval.jsonl"), Chat)}
    return chats[chosen.chat_id], chosen.turn


# --- the end ---------------------------------------------------------------------------------------------------------


def show(settings: Settings, seconds: float) -> None:
    """The table of stages and the result."""
    from rich.console import Console
    from rich.table import Table

    from lab.report.collect import stage_rows

    table = Table("stage", "time", "in", "out", "rejected", title="The main job")
    for row in stage_rows(settings):
        table.add_row(row["stage"], f"{row['seconds']:.1f} s", *(str(row[key]) for key in ("in", "out", "rejected")))
    Console().print(table)
    report_dir = Path(settings.path("reports")) / settings.run_dir.name
    summary = read_json(report_dir / "summary.json")
    shares = ", ".join(f"{name} {_share(summary[name])}" for name in ("base", "tuned", "quantized"))
    print(f"exact tool calls on {summary['num_eval']} held-out sessions: {shares}")
    print(f"report: {report_dir / 'index.html'}")
    print("talk to the model: make ollama-serve, and in another terminal: make chat")
    print(f"demo: done in {seconds:.0f} s")


def _share(figures: dict[str, Any]) -> str:
    exact = figures["tool_call_exact"]
    return "none asked for" if exact is None else f"{exact:.1%}"
