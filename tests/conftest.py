"""What all tests share: a clean environment, and the small world of tests/world.py with real models made from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import config, pretrain, tokens
from lab.config import Settings
from tests import world


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """No settings of the person who runs the tests, no `.env`, no model hub: here and in every child process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("LLM_", "WANDB_", "LANGFUSE_", "LANGSMITH_", "OPENAI_", "HF_")):
                patch.delenv(name)
        patch.setenv(config.ENV_FILE_VARIABLE, "")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # tiny models: threads that wait for a busy core cost more than they give
        yield


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A data volume with the samples alone."""
    world.write_samples(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def make_settings(volume: Path) -> Callable[..., Settings]:
    """Settings on `volume`; groups are nested values, as flags give them."""

    def make(**groups: Any) -> Settings:
        return world.settings_on(volume, **groups)

    return make


@pytest.fixture
def torch_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data commands hide PyTorch from their process; in this one other tests still need it."""
    monkeypatch.setattr(tokens, "torch_is_hidden", tokens.torch_is_hidden)


@pytest.fixture(scope="session")
def tokenizer_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data volume with the samples and the tiny tokenizer; needs no PyTorch. Not to be written to."""
    data_dir = tmp_path_factory.mktemp("tokenizer") / "data"
    world.write_samples(data_dir)
    pretrain.run_tokenizer(world.settings_on(data_dir))
    return data_dir


@pytest.fixture(scope="session")
def tiny_volume(tokenizer_volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data volume with samples, tiny model and dataset, made by the lab's own stages. Not to be written to."""
    from lab import check, extract
    from lab import format as folding

    data_dir = tmp_path_factory.mktemp("tiny") / "data"
    shutil.copytree(tokenizer_volume, data_dir)
    settings = world.settings_on(data_dir, pretrain={"num_steps": 4}, check={"stats": False})
    for stage in (pretrain.run, extract.run, folding.run, check.run):
        stage(settings)
    return data_dir


@pytest.fixture
def tiny(tiny_volume: Path, tmp_path: Path) -> Path:
    """A copy of the volume with model and dataset, for one test to write to."""
    return Path(shutil.copytree(tiny_volume, tmp_path / "data"))
