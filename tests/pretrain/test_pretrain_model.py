from __future__ import annotations

from pathlib import Path

import pytest

from lab import pretrain
from tests import world

pytestmark = pytest.mark.torch


def test_the_model_loads_like_any_other_and_fits_its_tokenizer(tiny_volume: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_volume / "models" / "tiny"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.hidden_size % 256 == model.config.intermediate_size % 256 == 0
    assert model.config.eos_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.chat_template


def test_pretraining_is_done_once_and_anew_for_other_settings(tiny: Path) -> None:
    steps = {"pretrain": {"num_steps": 4}}
    outcome = pretrain.run(world.settings_on(tiny, **steps))
    assert outcome is not None  # the volume was copied: its manifests name other paths, so the model is made again
    assert outcome.note.startswith("4 steps, loss ")
    first = (tiny / "models" / "tiny" / "model.safetensors").read_bytes()
    again = pretrain.run(world.settings_on(tiny, **steps))
    assert again is not None
    assert again.up_to_date
    repeated = pretrain.run(world.settings_on(tiny, **steps, force=True))
    assert repeated is not None
    assert not repeated.up_to_date
    assert (tiny / "models" / "tiny" / "model.safetensors").read_bytes() == first


def test_the_loss_goes_down(tiny: Path) -> None:
    from lab.pretrain.model import pretrain_model

    losses: list[float] = []
    pretrain_model(
        tiny / "samples" / "pretrain.jsonl",
        tiny / "models" / "tiny",
        seed=1,
        num_steps=25,
        progress=lambda step, total, loss: losses.append(loss),
        tokens_per_batch=512,
    )
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_rows_of_like_length_share_a_batch_and_padding_is_no_target() -> None:
    from lab.pretrain.model import make_batches

    rows = [([1] * length, [1] * length) for length in (5, 1, 4, 2, 9)]
    batches = make_batches(rows, tokens_per_batch=8, pad_token_id=0)
    assert [ids.tolist() for ids, _ in batches] == [
        [[1, 0], [1, 1]],
        [[1, 1, 1, 1]],
        [[1, 1, 1, 1, 1]],
        [[1] * 9],
    ]
    assert next(labels.tolist() for _, labels in batches) == [[1, -100], [1, 1]]


def test_the_learning_rate_rises_then_falls_to_a_tenth() -> None:
    from lab.pretrain.model import rate_at

    rates = [rate_at(step, 100) for step in range(1, 101)]
    assert rates[:19] == sorted(rates[:19])
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1)
