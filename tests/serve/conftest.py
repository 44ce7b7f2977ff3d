"""A quantized tiny model for the serving tests, made once a session with llama.cpp's real tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.config import Settings, load
from lab.export import llama_cpp, merge, quantize
from tests import tiny_run


@pytest.fixture(scope="session")
def quantized_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("served")
    tiny_run.make_base(data_dir / "models" / "tiny")
    tiny_run.make_adapter(data_dir / "models" / "tiny", data_dir / "runs" / "demo" / "adapter")
    tiny_run.write_inputs(data_dir)
    llama_cpp.locate(load())
    settings = tiny_run.settings_of(data_dir, export={"quants": ["Q8_0"]})
    merge.run(settings)
    quantize.run(settings)
    return data_dir


@pytest.fixture
def quantized_settings(quantized_data_dir: Path) -> Settings:
    """Served by the embedded server on a free port."""
    serve = {"backend": "embedded", "quant": "Q8_0", "port": 0, "num_parallel": 2}
    return tiny_run.settings_of(quantized_data_dir, serve=serve, chat={"tools": [], "max_tokens": 8})
