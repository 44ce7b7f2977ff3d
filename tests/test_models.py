from __future__ import annotations

from pathlib import Path

import pytest

from lab import models
from lab.errors import LabError
from tests import world


def test_the_tiny_model_is_needed_only_where_it_is_asked_for(tmp_path: Path) -> None:
    models.need_base(world.settings_on(tmp_path, model={"base_model": "someone/else"}))
    with pytest.raises(LabError, match="`make pretrain` writes it"):
        models.need_base(world.settings_on(tmp_path))


def test_the_files_of_a_hub_model_are_not_ours_to_watch(tmp_path: Path) -> None:
    assert models.base_files(world.settings_on(tmp_path, model={"base_model": "someone/else"})) == []


@pytest.mark.torch
def test_the_number_format_is_the_one_that_was_asked_for(tiny_volume: Path) -> None:
    import torch

    settings = world.settings_on(tiny_volume, model={"torch_dtype": "bfloat16", "device_map": "cpu"})
    assert models.load_base(settings).dtype == torch.bfloat16
    names = {path.name for path in models.base_files(settings)}
    assert {"model.safetensors", "config.json", "chat_template.jinja", "tokenizer.model"} <= names


@pytest.mark.torch
def test_a_model_that_cannot_be_loaded_names_the_setting(tmp_path: Path) -> None:
    settings = world.settings_on(tmp_path, model={"base_model": str(tmp_path)})
    with pytest.raises(LabError, match=r"the base model cannot be loaded.*check LLM_MODEL__BASE_MODEL"):
        models.load_base(settings)


@pytest.mark.torch
def test_cuda_without_a_gpu_is_an_error_and_auto_takes_the_processor() -> None:
    import torch

    if torch.cuda.is_available():
        assert models.device_map("auto") == "auto"
        return
    assert models.device_map("auto") == models.device_map("cpu") == "cpu"
    with pytest.raises(LabError, match="PyTorch sees no GPU; use auto or cpu"):
        models.device_map("cuda:0")
