from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab import check, train
from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat
from lab.store import current, read_jsonl
from lab.tokens import load_renderer
from tests import world

pytestmark = pytest.mark.torch

TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "eval_steps": 3,
    "save_steps": 3,
    "learning_rate": 5e-3,
}


def settings_on(data_dir: Path, **training: Any) -> Settings:
    return world.settings_on(data_dir, training=TRAINING | training, lora={"r": 4, "lora_alpha": 8})


@pytest.fixture(scope="module")
def trained(tiny_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a volume on which a training of two epochs has ended."""
    data_dir = Path(shutil.copytree(tiny_volume, tmp_path_factory.mktemp("trained") / "data"))
    outcome = train.run(settings_on(data_dir))
    assert not outcome.up_to_date
    return settings_on(data_dir)


def curve(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_training_saves_adapter_tokenizer_and_chat_template(trained: Settings) -> None:
    adapter = trained.run_dir / "adapter"
    names = {path.name for path in adapter.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert set(config["target_modules"]) >= {"q_proj", "v_proj", "down_proj"}
    template = Path(trained.base_model_path) / "chat_template.jinja"
    assert (adapter / "chat_template.jinja").read_text().strip() == template.read_text().strip()
    assert not (trained.run_dir / "checkpoints").exists()


def test_the_curve_holds_training_and_held_out_loss_and_falls(trained: Settings) -> None:
    losses = [entry["loss"] for entry in curve(trained.run_dir) if "loss" in entry]
    held_out = [entry["eval_loss"] for entry in curve(trained.run_dir) if "eval_loss" in entry]
    assert len(losses) == 2 * -(-len(chats_of(trained, "train")) // 4)
    assert losses[-1] < losses[0]
    assert held_out[-1] < held_out[0]


def chats_of(settings: Settings, side: str) -> list[Chat]:
    return list(read_jsonl(settings.path(f"dataset/{side}.jsonl"), Chat))


def test_the_second_time_it_is_up_to_date(trained: Settings) -> None:
    outcome = train.run(trained)
    assert outcome.up_to_date
    assert "steps, held-out loss" in outcome.summary()


def test_only_target_tokens_have_labels_in_the_batches_of_the_trainer(trained: Settings) -> None:
    renderer = load_renderer(trained)
    chats = chats_of(trained, "train")[:4]
    rows = [renderer.tokenize(chat) for chat in chats]
    data = train.to_dataset(chats, renderer)
    trainer = train.make_trainer(trained, renderer, data, data)
    [batch] = list(trainer.get_eval_dataloader())
    assert batch["labels"].shape == batch["input_ids"].shape
    seen = sorted([label for label in labels if label != -100] for labels in batch["labels"].tolist())
    assert seen == sorted([label for label in row.labels if label != -100] for row in rows)
    trainable = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_two_trainings_with_one_seed_are_equal_and_with_another_they_differ(trained: Settings, tiny: Path) -> None:
    from safetensors.torch import load_file

    train.run(settings_on(tiny))
    weights = [load_file(s.run_dir / "adapter" / "adapter_model.safetensors") for s in (trained, settings_on(tiny))]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    train.run(settings_on(tiny, seed=43))
    other = load_file(settings_on(tiny).run_dir / "adapter" / "adapter_model.safetensors")
    assert not all(weights[0][name].equal(other[name]) for name in other)


def test_missing_data_or_model_names_the_command_that_makes_it(tiny: Path) -> None:
    (tiny / "models" / "tiny" / "model.safetensors").unlink()
    with pytest.raises(LabError, match="`make pretrain` writes it"):
        train.run(settings_on(tiny))
    (tiny / "dataset" / "eval.jsonl").unlink()
    with pytest.raises(LabError, match="`make check-data` writes it"):
        train.run(settings_on(tiny))


# --- checkpoints


def test_checkpoints_of_other_settings_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    made_from = {"settings": {"r": 1}}
    assert train.last_checkpoint(folder, made_from) is None
    for step in (9, 10):
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "trainer_state.json").touch()
    assert train.last_checkpoint(folder, made_from) == folder / "checkpoint-10"
    assert train.last_checkpoint(folder, {"settings": {"r": 2}}) is None
    assert [path.name for path in folder.iterdir()] == ["made_from.json"]


def test_half_a_checkpoint_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    train.last_checkpoint(folder, {})
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "adapter_model.safetensors").touch()
    assert train.last_checkpoint(folder, {}) is None


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_adapter(
    trained: Settings, tiny: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    variables = {f"LLM_TRAINING__{name.upper()}": str(value) for name, value in TRAINING.items()}
    variables |= {"LLM_LORA__R": "4", "LLM_LORA__LORA_ALPHA": "8"}
    process = subprocess.Popen([sys.executable, "-m", "lab", "train"], cwd=tmp_path, env={**os.environ, **variables})
    checkpoints = settings_on(tiny).run_dir / "checkpoints"
    while not list(checkpoints.glob("checkpoint-3/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_dir = settings_on(tiny).run_dir
    assert not (run_dir / "adapter").exists()
    assert not (run_dir / "metrics.jsonl").exists()
    done = world.run_lab("train", "--log-level", "DEBUG", cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert "going on from checkpoint-" in done.stderr
    steps = [entry["step"] for entry in curve(run_dir) if "loss" in entry]
    assert steps == list(range(1, len(steps) + 1))
    weights = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (trained.run_dir, run_dir)]
    assert all(weights[0][name].allclose(weights[1][name], atol=1e-4) for name in weights[0])
    assert not checkpoints.exists()


@pytest.mark.slow
def test_the_seeds_script_runs_the_stages_before_it_and_trains(tiny: Path, tmp_path: Path) -> None:
    for folder in ("raw", "interim", "dataset"):
        shutil.rmtree(tiny / folder)
    script = str(world.ROOT / "lab" / "train_lora.py")
    flags = ["--log-level", "DEBUG", "--training.num-train-epochs", "1", "--lora.r=4"]
    done = world.run_lab(script, *flags, cwd=tmp_path, LLM_PRETRAIN__NUM_STEPS="4")
    assert done.returncode == 0, done.stderr
    said = [
        line.split(":")[0]
        for line in done.stdout.splitlines()
        if line.startswith(("extract", "format", "check", "train"))
    ]
    assert said == ["extract", "format", "check-data", "train"]
    assert (tiny / "runs" / "demo" / "adapter" / "adapter_model.safetensors").exists()


def test_the_dataset_of_another_split_makes_the_adapter_stale(trained: Settings, tmp_path: Path) -> None:
    paths = [trained.path(f"dataset/{side}.jsonl") for side in ("train", "eval")]
    assert current(train.make_step(trained, paths)) is not None
    assert current(train.make_step(trained, paths[::-1])) is None
    for path in paths:
        shutil.copy2(path, f"{path}.kept")
    try:
        check.run(world.settings_on(trained.data.data_dir, data={"eval_fraction": 0.5}, check={"stats": False}))
        assert current(train.make_step(trained, paths)) is None
    finally:
        for path in paths:
            shutil.move(f"{path}.kept", path)
