"""evaluate: asks every contender for the held-out answers and counts what is right.

Reads dataset/eval.jsonl and the models, writes runs/NAME/evaluation/CONTENDER.{jsonl,json}: one prediction a line, and
the figures. The contenders are the base model, the tuned one, and the quantized one as it is served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.config import Settings
from lab.errors import LabError, UsageError
from lab.evaluate.metrics import summarize
from lab.models import base_files, model_files, need_base
from lab.records import Chat, Prediction
from lab.store import Outcome, Step, current, finish, need, read_json, read_jsonl, write_json, write_jsonl

CONTENDERS = ("base", "tuned", "quantized")
Answer = Callable[[Settings, list[Chat]], tuple[list[Prediction], dict[str, Any]]]


def run(settings: Settings) -> Outcome:
    """Evaluate every contender that the settings name, one after another."""
    eval_path = need(settings.path("dataset/eval.jsonl"), "check-data")
    names = settings.evaluate.contenders
    if strangers := set(names) - set(CONTENDERS):
        raise UsageError(
            f"unknown contender {sorted(strangers)[0]!r}",
            where="LLM_EVALUATE__CONTENDERS",
            mend=f"choose of {CONTENDERS}",
        )
    outcomes = [evaluate_one(settings, name, eval_path) for name in names]
    total = Outcome("evaluate", sum(o.num_in for o in outcomes), sum(o.num_out for o in outcomes))
    total.seconds = sum(outcome.seconds for outcome in outcomes)
    total.up_to_date = all(outcome.up_to_date for outcome in outcomes)
    total.note = ", ".join(outcome.note for outcome in outcomes)
    return total


def evaluate_one(settings: Settings, contender: str, eval_path: Path) -> Outcome:
    """Predictions and figures of one contender, unless they are up to date."""
    started = time.time()
    out_dir = settings.run_dir / "evaluation"
    step = make_step(settings, contender, eval_path, out_dir)
    if not settings.force and (outcome := current(step)):
        return outcome
    chats = list(read_jsonl(eval_path, Chat))
    predictions, measured = _answer(contender)(settings, chats)
    outputs = [out_dir / f"{contender}.jsonl", out_dir / f"{contender}.json"]
    write_jsonl(outputs[0], predictions)
    figures = {"contender": contender, **summarize(predictions), "num_eval": len(chats), **measured}
    figures["seconds"] = round(time.time() - started, 1)
    write_json(outputs[1], figures)
    num_turns = sum(len(chat.target_indices) for chat in chats)
    outcome = Outcome("evaluate", num_turns, len(predictions), outputs=outputs, note=_note(figures))
    return finish(step, outcome, started)


def is_current(settings: Settings, contender: str) -> bool:
    """Whether a contender's figures are there and nothing that they depend on has changed."""
    step = make_step(settings, contender, settings.path("dataset/eval.jsonl"), settings.run_dir / "evaluation")
    return current(step) is not None


def make_step(settings: Settings, contender: str, eval_path: Path, out_dir: Path) -> Step:
    """What a contender's answers depend on; missing models are named with the command that makes them."""
    need_base(settings)
    inputs = [eval_path, *base_files(settings)]
    if contender == "tuned":
        inputs += model_files(need(settings.run_dir / "adapter", "train"))
    if contender == "quantized":
        inputs.append(gguf_path(settings))
    chosen = {
        "model": settings.model,
        "max_new_tokens": settings.evaluate.max_new_tokens,
        "inject": settings.data.model_dump(include={"inject_tool_catalog", "inject_tool_preamble"}),
        "quant": settings.serve.quant if contender == "quantized" else None,
    }
    code = ("evaluate", "tokens.py", "models.py", "endpoint.py")
    return Step("evaluate", out_dir / f"{contender}.manifest.json", inputs, chosen, code)


def gguf_path(settings: Settings) -> Path:
    """The GGUF that is served."""
    return need(settings.run_dir / "gguf" / f"{settings.run_dir.name}-{settings.serve.quant}.gguf", "quantize")


def _answer(contender: str) -> Answer:
    if contender == "quantized":
        from lab.evaluate.served import answer_served

        return answer_served
    from lab.evaluate.local import answer_base, answer_tuned

    return answer_base if contender == "base" else answer_tuned


def _note(figures: dict[str, Any]) -> str:
    exact = figures["tool_call_exact"]
    share = "no tool calls held out" if exact is None else f"{exact:.1%} exact of {figures['num_tool_calls']} calls"
    return f"{figures['contender']} {share}, loss {figures['loss']:.3f}"


def served_endpoint(settings: Settings) -> tuple[str, str]:
    """URL and model name of the served model, from the setting or from what `make ollama-serve` wrote."""
    serving = need(settings.run_dir / "serving.json", "ollama-serve")
    record = read_json(serving)
    if not isinstance(record, dict) or not {"url", "model"} <= set(record):
        raise LabError("url or model is missing", where=str(serving), mend="`make ollama-serve` writes it")
    return settings.evaluate.served_url or str(record["url"]), str(record["model"])
