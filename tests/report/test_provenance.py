"""How a run was made, and the commands that make it again."""

from __future__ import annotations

from typing import Any

import pytest

from lab.report.provenance import made, repeat_commands
from lab.store import read_json
from tests.report.finished_run import FinishedRun


@pytest.fixture
def manifest(reported_run: FinishedRun) -> dict[str, Any]:
    return {**read_json(reported_run.run_dir / "train.manifest.json"), "commit": "0a1b2c+"}


def test_the_making_names_model_settings_data_and_versions(manifest: dict[str, Any]) -> None:
    said = made(manifest)
    assert said["base model"] == "tiny"
    assert said["LoRA"] == "r 32, lora_alpha 64, lora_dropout 0.0, target_modules all-linear"
    assert "learning_rate 0.003" in said["training"]
    assert said["dataset (sha256)"].startswith("train.jsonl ")
    assert f"python {manifest['python']}, " in said["packages"]
    assert said["commit"] == "0a1b2c with changes that are not committed"


@pytest.mark.parametrize(
    ("commit", "said"), [("0a1b2c", "0a1b2c"), (None, "unknown: the code was in no git repository")]
)
def test_the_commit_is_told_as_far_as_it_is_known(manifest: dict[str, Any], commit: str | None, said: str) -> None:
    assert made({**manifest, "commit": commit})["commit"] == said


def test_the_demo_is_repeated_without_naming_its_own_recipe(
    reported_run: FinishedRun, manifest: dict[str, Any]
) -> None:
    commands = repeat_commands(reported_run.settings, manifest)
    exports = [command for command in commands if command.startswith("export ")]
    assert exports == [f"export LLM_DATA__DATA_DIR={reported_run.settings.data.data_dir}"]
    assert commands[0] == "git checkout 0a1b2c"
    assert commands[-1] == "make report"


def test_outside_a_repository_there_is_nothing_to_check_out(
    reported_run: FinishedRun, manifest: dict[str, Any]
) -> None:
    commands = repeat_commands(reported_run.settings, {**manifest, "commit": None})
    assert not any(command.startswith("git") for command in commands)


def test_settings_that_differ_from_the_defaults_are_exported_and_quoted(
    reported_run: FinishedRun, manifest: dict[str, Any]
) -> None:
    chosen = manifest["settings"]
    chosen["model"] = {**chosen["model"], "base_model": "my models/qwen", "revision": "v2"}
    chosen["lora"] = {**chosen["lora"], "target_modules": ["q_proj", "v_proj"]}
    chosen["inject"] = {**chosen["inject"], "inject_tool_preamble": False}
    commands = repeat_commands(reported_run.settings, manifest)
    assert "export LLM_MODEL__BASE_MODEL='my models/qwen'" in commands
    assert "export LLM_LORA__TARGET_MODULES=q_proj,v_proj" in commands
    assert "export LLM_DATA__INJECT_TOOL_PREAMBLE=false" in commands
    # The tiny model's recipe is no default of another base model.
    assert "export LLM_LORA__R=32" in commands
    assert made(manifest)["base model"] == "my models/qwen at v2"
