"""Reading what a run left: the table of stages, the curve, the predictions."""

from __future__ import annotations

import json
import math

import pytest

from lab.config import load
from lab.errors import LabError
from lab.records import Chat
from lab.report import run
from lab.report.collect import read_curve, read_predictions, stage_rows
from lab.store import atomic_file, read_jsonl, write_jsonl
from tests.report.finished_run import FinishedRun, make_chat


def test_stages_come_in_the_order_of_the_flow_and_evaluation_of_base_and_tuned_is_one_row(
    reported_run: FinishedRun,
) -> None:
    rows = {row["stage"]: row for row in stage_rows(reported_run.settings)}
    assert list(rows)[4:8] == ["train", "evaluate", "merge", "quantize"]
    assert (rows["evaluate"]["in"], rows["evaluate"]["out"]) == (96, 96)
    assert rows["check-data"]["rejected"] == 1
    assert rows["check-data"]["reasons"] == {"too_long": 1}


def test_stages_that_have_not_run_are_left_out(finished_run: FinishedRun) -> None:
    finished_run.settings.path("interim/manifest.json").unlink()
    (finished_run.run_dir / "evaluation" / "base.manifest.json").unlink()
    rows = {row["stage"]: row for row in stage_rows(finished_run.settings)}
    assert "format" not in rows
    assert rows["evaluate"]["in"] == 48


def test_the_tiny_models_pretraining_is_no_stage_of_another_base_model(finished_run: FinishedRun) -> None:
    finished_run.settings.model.base_model = "Qwen/Qwen2.5-0.5B-Instruct"
    assert "pretrain" not in [row["stage"] for row in stage_rows(finished_run.settings)]


def test_nothing_has_run_yet_is_an_empty_table(reported_run: FinishedRun) -> None:
    settings = load({"data": {"data_dir": reported_run.settings.path("nothing")}})
    assert stage_rows(settings) == []


def test_a_stage_made_from_files_that_were_written_anew_is_called_out(finished_run: FinishedRun) -> None:
    with atomic_file(finished_run.run_dir / "adapter" / "adapter_model.safetensors") as file:
        file.write("other weights")
    adapter = finished_run.run_dir / "adapter"
    finished_run.manifest("train", finished_run.run_dir / "train.manifest.json", (30, 30, {}), outputs=[adapter])
    stale = {row["stage"]: row["stale"] for row in stage_rows(finished_run.settings) if row["stale"]}
    assert stale == {
        "evaluate": "made from an older adapter_model.safetensors; `make evaluate` repeats it",
        "merge": "made from an older adapter_model.safetensors; `make merge` repeats it",
    }


def test_the_page_warns_of_stages_made_from_older_files(finished_run: FinishedRun) -> None:
    finished_run.write_training()
    with atomic_file(finished_run.run_dir / "merged" / "model.safetensors") as file:
        file.write("other weights")
    merged = finished_run.run_dir / "merged"
    finished_run.manifest("merge", finished_run.run_dir / "merged.manifest.json", (21, 21, {}), outputs=[merged])
    run(finished_run.settings)
    page = finished_run.settings.path("reports/demo/index.html").read_text(encoding="utf-8")
    assert "Not up to date: quantize was made from an older model.safetensors" in page


def test_a_manifest_of_another_shape_is_an_error_that_names_it(finished_run: FinishedRun) -> None:
    path = finished_run.settings.path("interim/manifest.json")
    path.write_text(json.dumps({"stage": "format"}))
    with pytest.raises(LabError, match="a manifest of another version"):
        stage_rows(finished_run.settings)


def test_the_curve_has_training_and_held_out_points(reported_run: FinishedRun) -> None:
    curve = read_curve(reported_run.run_dir / "metrics.jsonl")
    assert [step for step, _ in curve.held_out] == [50, 100, 150, 200, 250, 300]
    assert len(curve.train) == 30
    assert curve.train[0] == (10, pytest.approx(0.25 + 2 * 0.985**10))


def test_a_loss_that_is_not_a_number_is_read_as_such(finished_run: FinishedRun) -> None:
    path = finished_run.run_dir / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n')
    assert math.isnan(read_curve(path).train[0][1])


def test_a_broken_line_of_the_curve_is_named_by_file_and_line(finished_run: FinishedRun) -> None:
    path = finished_run.run_dir / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, \n')
    with pytest.raises(LabError, match=r"metrics\.jsonl:2: not JSON: .*; `make train` writes it anew"):
        read_curve(path)


@pytest.mark.parametrize(
    ("contender", "command"),
    [("tuned", "make evaluate`"), ("quantized", "make evaluate LLM_EVALUATE__CONTENDERS=quantized`")],
)
def test_contenders_that_answered_other_turns_are_not_compared(
    finished_run: FinishedRun, contender: str, command: str
) -> None:
    path = finished_run.run_dir / "evaluation" / f"{contender}.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    chats = {chat.id: chat for chat in finished_run.chats}
    with pytest.raises(LabError) as caught:
        read_predictions(finished_run.settings, chats)
    assert command in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_dataset_that_was_split_anew_needs_another_evaluation(finished_run: FinishedRun) -> None:
    eval_path = finished_run.settings.path("dataset/eval.jsonl")
    write_jsonl(eval_path, [*read_jsonl(eval_path, Chat), make_chat(99)])
    with pytest.raises(LabError, match="its answers are to other turns"):
        run(finished_run.settings)
