"""Tiny real models for the export's tests: made once a session, on the CPU, in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.config import Settings, load
from lab.export import llama_cpp, merge
from lab.export.llama_cpp import Tools
from tests import tiny_run


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tiny_run.make_base(folder)
    return folder


@pytest.fixture(scope="session")
def merged_data_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data volume with base, adapter, held-out conversations and the merged model."""
    data_dir = tmp_path_factory.mktemp("data")
    shutil.copytree(base_dir, data_dir / "models" / "tiny")
    tiny_run.make_adapter(base_dir, data_dir / "runs" / "demo" / "adapter")
    tiny_run.write_inputs(data_dir)
    merge.run(tiny_run.settings_of(data_dir))
    return data_dir


@pytest.fixture
def merged_settings(merged_data_dir: Path, tmp_path: Path, llama_tools: Tools) -> Settings:
    """Settings of a copy that a test may spoil."""
    shutil.copytree(merged_data_dir, tmp_path / "data")
    return tiny_run.settings_of(tmp_path / "data", export={"quants": ["Q8_0"]})


@pytest.fixture(scope="session")
def llama_tools() -> Tools:
    """llama.cpp as this machine has it; built once where it has none."""
    return llama_cpp.locate(load())
