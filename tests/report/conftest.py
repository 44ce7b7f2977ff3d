"""The run that the report is tested on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import report
from lab.config import load
from lab.store import write_json
from tests.report.finished_run import FinishedRun


def write_run(folder: Path) -> FinishedRun:
    """A whole run of the tiny model, the quantized one evaluated and talked to."""
    settings = load({"data": {"data_dir": folder / "data"}, "training": {"output_dir": "runs/demo"}})
    run = FinishedRun(settings)
    run.write_data()
    run.write_training()
    run.write_evaluation("base")
    run.write_evaluation("tuned")
    run.write_export()
    run.write_evaluation("quantized")
    run.write_served_chat()
    return run


@pytest.fixture
def finished_run(tmp_path: Path) -> FinishedRun:
    """A run for one test to write to."""
    return write_run(tmp_path)


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run with its report. Not to be written to."""
    finished = write_run(tmp_path_factory.mktemp("reported"))
    report.run(finished.settings)
    return finished


@pytest.fixture
def rewrite(finished_run: FinishedRun) -> Callable[[str, dict[str, Any]], None]:
    """Replaces keys of a JSON file of the run."""

    def replace(name: str, values: dict[str, Any]) -> None:
        path = finished_run.run_dir / name
        write_json(path, {**json.loads(path.read_text()), **values})

    return replace
