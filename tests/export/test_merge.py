"""Merging an adapter, with a real tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.errors import GateError, LabError
from lab.export import merge
from tests.tiny_run import make_adapter, settings_of

pytestmark = pytest.mark.torch


def copy_base(base_dir: Path, data_dir: Path) -> Path:
    shutil.copytree(base_dir, data_dir / "models" / "tiny")
    return data_dir / "runs" / "demo" / "adapter"


def test_merged_answers_as_base_with_adapter_does(merged_data_dir: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run_dir = merged_data_dir / "runs" / "demo"
    merged = AutoModelForCausalLM.from_pretrained(run_dir / "merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(merged_data_dir / "models" / "tiny", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, str(run_dir / "adapter"))
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=0.05, rtol=0.05)
    with adapted.disable_adapter():
        assert (merged(ids).logits - adapted(ids).logits).abs().max() > 0.1


def test_merged_is_16_bit_with_template_and_generation_config(merged_data_dir: Path) -> None:
    merged_dir = merged_data_dir / "runs" / "demo" / "merged"
    assert json.loads((merged_dir / "config.json").read_text())["dtype"] == "bfloat16"
    names = {path.name for path in merged_dir.iterdir()}
    assert {"chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer.model"} <= names


def test_what_transformers_5_drops_is_back_for_llama_cpp(merged_data_dir: Path) -> None:
    config = json.loads((merged_data_dir / "runs" / "demo" / "merged" / "tokenizer_config.json").read_text())
    decoder = {entry["content"]: entry["special"] for entry in config["added_tokens_decoder"].values()}
    assert decoder["<|im_start|>"] is True
    assert decoder["<tool_call>"] is False
    assert config["add_bos_token"] is False


def test_a_second_run_is_up_to_date_and_force_repeats_it(base_dir: Path, tmp_path: Path) -> None:
    make_adapter(base_dir, copy_base(base_dir, tmp_path))
    settings = settings_of(tmp_path)
    first = merge.run(settings)
    assert (first.num_in, first.num_out, first.up_to_date) == (7, 7, False)
    assert merge.run(settings).up_to_date
    assert not merge.run(settings.model_copy(update={"force": True})).up_to_date


def test_an_adapter_that_changes_nothing_is_refused_and_leaves_nothing(base_dir: Path, tmp_path: Path) -> None:
    make_adapter(base_dir, copy_base(base_dir, tmp_path), changes=False)
    with pytest.raises(GateError, match="equal the base's"):
        merge.run(settings_of(tmp_path))
    assert sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir()) == ["adapter"]


def test_an_adapter_of_another_base_is_one_line(base_dir: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    make_adapter(base_dir, copy_base(base_dir, tmp_path))
    other = LlamaConfig(vocab_size=340, hidden_size=128, intermediate_size=256, num_hidden_layers=1)
    LlamaForCausalLM(other).save_pretrained(tmp_path / "models" / "tiny")
    with pytest.raises(LabError, match=r"adapter does not fit the base model.*LLM_MODEL__BASE_MODEL") as caught:
        merge.run(settings_of(tmp_path))
    assert "\n" not in str(caught.value)


def test_no_adapter_names_the_command_that_trains_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`make train`"):
        merge.run(settings_of(tmp_path))


def test_an_adapter_without_a_tokenizer_takes_the_bases(base_dir: Path, tmp_path: Path) -> None:
    adapter_dir = copy_base(base_dir, tmp_path)
    make_adapter(base_dir, adapter_dir)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter_dir / name).unlink()
    merge.run(settings_of(tmp_path))
    assert (tmp_path / "runs" / "demo" / "merged" / "chat_template.jinja").is_file()


def test_a_16_bit_checkpoint_keeps_its_format() -> None:
    import torch

    assert merge.sixteen_bit(torch.float16) is torch.float16
    assert merge.sixteen_bit(torch.float32) is torch.bfloat16
