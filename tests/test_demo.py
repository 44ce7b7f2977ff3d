"""The whole flow, by the command that a newcomer types: small, but nothing in it is faked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import config, demo

pytestmark = [pytest.mark.torch, pytest.mark.llama_cpp, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
SMALL = {
    "LLM_PRETRAIN__NUM_STEPS": "12",
    "LLM_TRAINING__NUM_TRAIN_EPOCHS": "1",
    "LLM_TRAINING__EVAL_STEPS": "2",
    "LLM_TRAINING__LOGGING_STEPS": "1",
    "LLM_EVALUATE__MAX_NEW_TOKENS": "24",
    "LLM_DATA__EVAL_FRACTION": "0.2",
    "LLM_SERVE__BACKEND": "embedded",
    "LLM_LORA__R": "8",
}


def copy_samples(data_dir: Path, num_sessions: int) -> None:
    """A data volume with some of the committed samples."""
    samples = ROOT / "data" / "samples"
    (data_dir / "samples" / "sessions").mkdir(parents=True)
    shutil.copy(ROOT / "data" / "tool_catalogue.json", data_dir)
    shutil.copy(samples / "pretrain.jsonl", data_dir / "samples")
    for path in sorted((samples / "sessions").glob("*.jsonl"))[:num_sessions]:
        shutil.copy(path, data_dir / "samples" / "sessions")


def run_demo(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LLM_")}
    environment = {**clean, **SMALL, "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-m", "lab", "demo"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    copy_samples(folder / "data", 40)
    (folder / ".env").write_text("LLM_LORA__LORA_ALPHA=3\n")  # a user's own settings are not the demo's
    return folder, run_demo(folder)


def test_the_demo_takes_session_logs_to_a_served_model_and_a_report(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    stages = [
        "pretrain",
        "extract",
        "format",
        "check-data",
        "train",
        "evaluate",
        "merge",
        "quantize",
        "serve",
        "report",
    ]
    for stage in stages:
        assert f"\n{stage}: " in f"\n{done.stdout}", f"no summary line of {stage}"
    report_dir = folder / "data" / "reports" / "demo"
    summary = json.loads((report_dir / "summary.json").read_text())
    keys = {"base", "tuned", "quantized", "num_eval", "num_train", "num_rejected", "seconds", "artifacts"}
    assert set(summary) == keys
    for contender in ("base", "tuned", "quantized"):
        assert set(summary[contender]) == {"tool_call_exact", "loss"}
        assert 0 <= summary[contender]["tool_call_exact"] <= 1
    assert summary["quantized"]["loss"] == pytest.approx(summary["tuned"]["loss"], rel=0.2)
    assert summary["num_rejected"] > 0
    assert summary["num_eval"] + summary["num_train"] == 40
    for path in summary["artifacts"].values():
        assert (folder / "data" / path).exists()
    assert "<svg" in (report_dir / "index.html").read_text()
    manifest = json.loads((folder / "data" / "runs" / "demo" / "train.manifest.json").read_text())
    assert manifest["settings"]["lora"]["lora_alpha"] == config.TINY_RECIPE["lora"]["lora_alpha"]


def test_the_served_model_saw_the_tools_and_the_trained_template(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run_dir = finished[0] / "data" / "runs" / "demo"
    assert json.loads((run_dir / "gguf" / "tokens.json").read_text())["identical"] is True
    chat = json.loads((run_dir / "served_chat.json").read_text())
    assert chat["tools"]
    assert chat["url"].startswith("http://127.0.0.1:")
    assert not (run_dir / "serving.json").exists()


def test_a_second_demo_does_nothing(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*") if path.is_file()}
    done = run_demo(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(tuple(f"{stage}: " for stage in demo.STAGES))]
    assert len(lines) == len(demo.STAGES)
    assert all("up to date" in line for line in lines)
    after = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} == {folder / "data" / "logs" / "build-llama.log"}


def test_a_failing_stage_ends_the_demo_with_its_exit_code(tmp_path: Path) -> None:
    copy_samples(tmp_path / "data", 3)
    (tmp_path / "data" / "samples" / "pretrain.jsonl").unlink()
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "pretrain.jsonl: the sample text is not there" in done.stderr
    assert "demo: stage pretrain ended with exit code 1" in done.stderr


def test_settings_that_the_demo_pins_are_said_to_be_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_MODEL__BASE_MODEL", "some/model")
    environment = demo.demo_environment()
    assert environment["LLM_MODEL__BASE_MODEL"] == config.TINY
    assert "LLM_MODEL__BASE_MODEL is set; the demo uses 'tiny'" in capsys.readouterr().err


def test_a_stopped_demo_stops_its_stage_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    copy_samples(tmp_path / "data", 3)
    environment = {**os.environ, **SMALL, "PYTHONPATH": str(ROOT), "LLM_PRETRAIN__NUM_STEPS": "100000"}
    process = subprocess.Popen([sys.executable, "-m", "lab", "demo"], cwd=tmp_path, env=environment)
    tokenizer_manifest = tmp_path / "data" / "models" / "tiny-tokenizer.manifest.json"
    while not tokenizer_manifest.exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 143
    left = [path.name for path in (tmp_path / "data").rglob("*") if ".partial" in path.name]
    assert left == []
    assert not (tmp_path / "data" / "models" / "tiny.manifest.json").exists()
