from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab import evaluate, train
from lab.config import Settings
from lab.errors import LabError, UsageError
from lab.evaluate import local
from lab.models import load_base, load_tuned
from lab.records import Chat, Prediction
from lab.store import read_jsonl
from lab.tokens import IGNORE_INDEX, load_renderer
from tests import world

pytestmark = pytest.mark.torch


def settings_on(data_dir: Path, **chosen: Any) -> Settings:
    return world.settings_on(
        data_dir,
        training={"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2},
        evaluate={"max_new_tokens": 12, "batch_size": 3} | chosen,
        lora={"r": 4},
    )


@pytest.fixture(scope="module")
def settings(tiny_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a volume with a trained adapter on which base and tuned model were evaluated."""
    data_dir = Path(shutil.copytree(tiny_volume, tmp_path_factory.mktemp("evaluated") / "data"))
    train.run(settings_on(data_dir))
    assert not evaluate.run(settings_on(data_dir)).up_to_date
    return settings_on(data_dir)


@pytest.fixture(scope="module")
def chats(settings: Settings) -> list[Chat]:
    return list(read_jsonl(settings.path("dataset/eval.jsonl"), Chat))


def figures(settings: Settings, contender: str) -> Any:
    return json.loads((settings.run_dir / "evaluation" / f"{contender}.json").read_text())


def test_every_held_out_turn_has_a_prediction_of_each_contender(settings: Settings, chats: list[Chat]) -> None:
    turns = [(chat.id, turn) for chat in chats for turn in chat.target_indices]
    for contender in ("base", "tuned"):
        path = settings.run_dir / "evaluation" / f"{contender}.jsonl"
        predictions = list(read_jsonl(path, Prediction))
        assert [(prediction.chat_id, prediction.turn) for prediction in predictions] == turns
        counted = figures(settings, contender)
        assert counted["num_eval"] == len(chats)
        assert counted["num_turns"] == len(turns)
        assert counted["num_tool_calls"] == counted["num_text"] == len(turns) / 2
        assert counted["perplexity"] == pytest.approx(math.exp(counted["loss"]))


def test_the_tuned_model_has_the_lower_loss(settings: Settings) -> None:
    assert figures(settings, "tuned")["loss"] < figures(settings, "base")["loss"]


def test_answers_are_the_same_in_batches_and_one_by_one(settings: Settings, chats: list[Chat]) -> None:
    model, renderer = load_tuned(settings, settings.run_dir / "adapter"), load_renderer(settings)
    model.eval()
    turns = [(chat, turn) for chat in chats for turn in chat.target_indices]
    alone = local.generate("x", model, renderer, turns, 1, 12)
    assert local.generate("x", model, renderer, turns, 3, 12) == alone
    assert local.generate("x", model, renderer, turns[::-1], 64, 12) == alone[::-1]
    assert any(alone)


def test_the_loss_is_the_mean_over_target_tokens(settings: Settings, chats: list[Chat]) -> None:
    import torch

    model, renderer = load_base(settings), load_renderer(settings)
    total, count = 0.0, 0
    for row in (renderer.tokenize(chat) for chat in chats):
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for position, label in enumerate(row.labels[1:]):
            if label != IGNORE_INDEX:
                total -= float(scores[position, label])
                count += 1
    for batch_size in (1, 2, 32):
        assert local.mean_loss(model, renderer, chats, batch_size) == pytest.approx(total / count, rel=1e-4)
    assert figures(settings, "base")["loss"] == pytest.approx(total / count, rel=1e-4)


def test_what_is_unchanged_is_not_asked_again(settings: Settings) -> None:
    outcome = evaluate.run(settings)
    assert outcome.up_to_date
    assert outcome.summary().startswith("evaluate: up to date (base ")
    assert evaluate.is_current(settings, "tuned")
    longer = settings_on(settings.data.data_dir, max_new_tokens=13)
    assert not evaluate.is_current(longer, "tuned")


def test_an_answer_ends_at_the_end_of_turn(settings: Settings) -> None:
    model, renderer = load_base(settings), load_renderer(settings)
    assert local.stop_ids(model, renderer) == [2]
    model.generation_config.eos_token_id = [7, 2]
    assert local.stop_ids(model, renderer) == [2, 7]
    model.generation_config.eos_token_id = None
    assert local.stop_ids(model, renderer) == [2]


def test_a_missing_adapter_names_the_command_that_trains_it(tiny: Path) -> None:
    with pytest.raises(LabError, match="adapter: not there yet; `make train` writes it"):
        evaluate.run(settings_on(tiny, contenders=["tuned"]))


def test_missing_held_out_conversations_name_their_command(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`make check-data` writes it"):
        evaluate.run(settings_on(tmp_path))


def test_an_unknown_contender_is_wrong_usage(tiny: Path) -> None:
    with pytest.raises(UsageError, match="LLM_EVALUATE__CONTENDERS: unknown contender 'gpt'; choose of"):
        evaluate.run(settings_on(tiny, contenders=["base", "gpt"]))


def test_the_quantized_contender_needs_its_file_and_its_server(tiny: Path) -> None:
    settings = settings_on(tiny)
    with pytest.raises(LabError, match="`make quantize` writes it"):
        evaluate.gguf_path(settings)
    with pytest.raises(LabError, match="`make ollama-serve` writes it"):
        evaluate.served_endpoint(settings)
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "serving.json").write_text('{"url": "http://127.0.0.1:1/v1"}')
    with pytest.raises(LabError, match="url or model is missing"):
        evaluate.served_endpoint(settings)
    (settings.run_dir / "serving.json").write_text('{"url": "http://127.0.0.1:1/v1", "model": "lab"}')
    assert evaluate.served_endpoint(settings) == ("http://127.0.0.1:1/v1", "lab")
    other = settings_on(tiny, served_url="http://127.0.0.1:2/v1")
    assert evaluate.served_endpoint(other) == ("http://127.0.0.1:2/v1", "lab")
