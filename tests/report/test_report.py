"""The stage as a whole: page, summary, manifest, and what it says where something is missing."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from lab.config import Settings
from lab.errors import LabError
from lab.records import Prediction
from lab.report import percent, run
from lab.store import read_jsonl, write_jsonl
from tests.report.finished_run import FinishedRun

Rewrite = Callable[[str, dict[str, Any]], None]


def page(settings: Settings) -> str:
    """The page, written anew where it is not up to date."""
    run(settings)
    return settings.path("reports/demo/index.html").read_text(encoding="utf-8")


def summary(settings: Settings) -> dict[str, Any]:
    run(settings)
    return json.loads(settings.path("reports/demo/summary.json").read_text(encoding="utf-8"))


def words(page: str) -> str:
    """What a reader sees, in one line."""
    text = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    return " ".join(html.unescape(text).split())


def test_the_summary_has_exactly_the_promised_keys_and_the_runs_numbers(reported_run: FinishedRun) -> None:
    found = summary(reported_run.settings)
    assert list(found) == [
        "base", "tuned", "quantized", "num_eval", "num_train", "num_rejected", "seconds", "artifacts",
    ]  # fmt: skip
    assert found["base"] == {"tool_call_exact": 1 / 24, "loss": 2.31}
    assert found["tuned"] == {"tool_call_exact": 18 / 24, "loss": 0.412}
    assert found["quantized"] == {"tool_call_exact": 16 / 24, "loss": 0.431}
    assert (found["num_eval"], found["num_train"], found["num_rejected"]) == (12, 30, 13)
    assert list(found["seconds"]) == [
        "pretrain", "extract", "format", "check-data", "train", "evaluate", "merge", "quantize",
        "evaluate (quantized)", "serve",
    ]  # fmt: skip


def test_every_artifact_of_the_summary_is_a_path_on_the_data_volume(reported_run: FinishedRun) -> None:
    artifacts = summary(reported_run.settings)["artifacts"]
    assert artifacts["adapter"] == "runs/demo/adapter"
    assert artifacts["gguf_Q4_K_M"] == "runs/demo/gguf/demo-Q4_K_M.gguf"
    assert all(reported_run.settings.path(path).exists() for path in artifacts.values())


def test_a_run_outside_the_data_volume_keeps_its_own_path(finished_run: FinishedRun) -> None:
    settings = finished_run.settings
    outside = settings.data.data_dir.parent / "elsewhere" / "demo"
    outside.parent.mkdir()
    finished_run.run_dir.rename(outside)
    settings.training.output_dir = outside
    assert summary(settings)["artifacts"]["adapter"] == str(outside / "adapter")


def test_the_page_says_the_result_in_one_sentence(reported_run: FinishedRun) -> None:
    said = words(page(reported_run.settings))
    assert "Of 24 tool calls in 12 held-out conversations the base model got 4.2 % exactly right" in said
    assert "the tuned model 75.0 % , and the quantized model as it is served 66.7 %" in said


def test_the_page_shows_stages_with_their_rejects_and_reasons(reported_run: FinishedRun) -> None:
    assert "extract 7.0 s 180 168 12 empty_output 4, unparseable_input 8; 42 files" in words(
        page(reported_run.settings)
    )


def test_the_page_shows_the_served_chat_with_its_tool_call(reported_run: FinishedRun) -> None:
    said = words(page(reported_run.settings))
    assert "lab:demo on embedded llama.cpp" in said
    assert 'user Where is order R-100? assistant order_status(order_id="R-100")' in said


def test_the_page_shows_contenders_side_by_side_with_their_verdict_in_words(reported_run: FinishedRun) -> None:
    said = words(page(reported_run.settings))
    expected = 'expected from the log order_status(order_id="R-103")'
    answered = 'tuned wrong: other arguments order_status(order_id="R-7")'
    assert expected in said
    assert answered in said
    assert "base wrong: no call the bicycle bicycle order" in said


def test_the_page_says_how_the_run_was_made_and_how_to_repeat_it(reported_run: FinishedRun) -> None:
    said = words(page(reported_run.settings))
    assert "base model tiny LoRA r 32, lora_alpha 64" in said
    assert "make extract format check-data train evaluate merge quantize" in said


class Outside(HTMLParser):
    """Collects scripts and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "base", "object"}:
            self.found.append(tag)
        self.found += [f"{key}={value}" for key, value in attrs if key in {"src", "href", "onload"}]


def test_the_page_loads_nothing_and_runs_nothing(reported_run: FinishedRun) -> None:
    found = page(reported_run.settings)
    parser = Outside()
    parser.feed(found)
    assert [item for item in parser.found if not item.startswith("href=#")] == []
    assert "@import" not in found
    assert not re.search(r"url\((?!#)", found)


def test_html_in_an_answer_and_in_a_chat_stays_text(finished_run: FinishedRun, rewrite: Rewrite) -> None:
    evil = "<script>alert(1)</script>"
    path = finished_run.run_dir / "evaluation" / "base.jsonl"
    answers = [answer.model_copy(update={"text": evil}) for answer in read_jsonl(path, Prediction)]
    write_jsonl(path, answers)
    rewrite("served_chat.json", {"content": evil, "backend": evil, "tool_calls": [{"name": evil, "arguments": evil}]})
    found = page(finished_run.settings)
    assert "<script" not in found
    assert html.escape(evil) in found


def test_the_same_files_give_the_same_bytes(finished_run: FinishedRun) -> None:
    first = page(finished_run.settings)
    finished_run.settings.force = True
    assert page(finished_run.settings) == first


def test_a_second_report_is_up_to_date_and_a_new_figure_makes_another(
    finished_run: FinishedRun, rewrite: Rewrite
) -> None:
    settings = finished_run.settings
    assert not run(settings).up_to_date
    assert run(settings).up_to_date
    rewrite("evaluation/tuned.json", {"loss": 0.5})
    assert not run(settings).up_to_date
    assert summary(settings)["tuned"]["loss"] == 0.5


def test_the_outcome_names_result_and_page(finished_run: FinishedRun) -> None:
    outcome = run(finished_run.settings)
    assert outcome.stage == "report"
    assert outcome.note.startswith("base 4.2 % → tuned 75.0 % → quantized 66.7 %; ")
    assert outcome.note.endswith("data/reports/demo/index.html")


def test_without_a_quantized_model_the_page_says_how_to_get_its_figures(finished_run: FinishedRun) -> None:
    for path in (finished_run.run_dir / "evaluation").glob("quantized*"):
        path.unlink()
    (finished_run.run_dir / "served_chat.json").unlink()
    said = words(page(finished_run.settings))
    assert summary(finished_run.settings)["quantized"] is None
    assert "make evaluate LLM_EVALUATE__CONTENDERS=quantized and make report" in said
    assert "None has been kept: make demo serves the model" in said


def test_a_dataset_without_held_out_calls_has_no_share(finished_run: FinishedRun, rewrite: Rewrite) -> None:
    for name in ("base", "tuned", "quantized"):
        rewrite(f"evaluation/{name}.json", {"tool_call_exact": None, "num_exact": 0, "num_tool_calls": 0})
    assert "No tool call was held out." in words(page(finished_run.settings))
    assert percent(None) == "–"


def test_a_training_too_short_for_a_curve_says_so(finished_run: FinishedRun) -> None:
    (finished_run.run_dir / "metrics.jsonl").write_text('{"step": 1, "train_loss": 1.0}\n')
    assert "The training was too short for a point of the curve" in words(page(finished_run.settings))


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("runs/demo/metrics.jsonl", "make train"),
        ("runs/demo/train.manifest.json", "make train"),
        ("runs/demo/evaluation/tuned.json", "make evaluate"),
        ("runs/demo/evaluation/base.jsonl", "make evaluate"),
        ("runs/demo/evaluation/quantized.jsonl", "make evaluate LLM_EVALUATE__CONTENDERS=quantized"),
        ("dataset/eval.jsonl", "make check-data"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_writes_it(
    finished_run: FinishedRun, missing: str, command: str
) -> None:
    path = finished_run.settings.path(missing)
    path.unlink()
    with pytest.raises(LabError) as caught:
        run(finished_run.settings)
    assert str(caught.value) == f"{path}: not there yet; `{command}` writes it"
