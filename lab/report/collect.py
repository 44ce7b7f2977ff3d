"""What a run left behind, as the values that the report shows.

Reads the manifests of all stages, a run's training curve, figures, predictions and served chat; writes nothing.
A number that was made from files which have changed since is named, so that no old result passes for a new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from lab.config import TINY, Settings
from lab.errors import LabError
from lab.records import Chat, Prediction
from lab.store import need, numbered_lines, read_json, read_jsonl

CONTENDERS = ("base", "tuned", "quantized")
EVALUATE_QUANTIZED = "evaluate LLM_EVALUATE__CONTENDERS=quantized"

StageRow = TypedDict(
    "StageRow",
    {
        "stage": str,
        "seconds": float,
        "in": int,
        "out": int,
        "rejected": int,
        "reasons": dict[str, int],
        "note": str,
        "stale": str,
    },
)


@dataclass(frozen=True)
class Curve:
    """Losses over steps, each point (step, loss)."""

    train: list[tuple[int, float]]
    held_out: list[tuple[int, float]]


# --- stages ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages: the manifests that it sums up, and the Make target that repeats it."""

    name: str
    command: str
    manifest_paths: tuple[Path, ...]


def stages(settings: Settings) -> list[Stage]:
    """The stages of this run that have finished, in the order of the flow."""
    run_dir = settings.run_dir
    evaluation = run_dir / "evaluation"
    flow = [
        Stage("extract", "extract", (settings.path("raw/sessions/manifest.json"),)),
        Stage("format", "format", (settings.path("interim/manifest.json"),)),
        Stage("check-data", "check-data", (settings.path("dataset/manifest.json"),)),
        Stage("train", "train", (run_dir / "train.manifest.json",)),
        Stage("evaluate", "evaluate", (evaluation / "base.manifest.json", evaluation / "tuned.manifest.json")),
        Stage("merge", "merge", (run_dir / "merged.manifest.json",)),
        Stage("quantize", "quantize", (run_dir / "gguf.manifest.json",)),
        Stage("evaluate (quantized)", EVALUATE_QUANTIZED, (evaluation / "quantized.manifest.json",)),
        Stage("serve", "demo", (run_dir / "served_chat.manifest.json",)),
    ]
    if settings.model.base_model == TINY:  # the tiny model may lie there from another run
        flow.insert(0, Stage("pretrain", "pretrain", (settings.path("models/tiny.manifest.json"),)))
    there = [
        Stage(stage.name, stage.command, tuple(path for path in stage.manifest_paths if path.exists()))
        for stage in flow
    ]
    return [stage for stage in there if stage.manifest_paths]


def stage_rows(settings: Settings) -> list[StageRow]:
    """The table of stages: time, records in and out, records rejected with their reasons."""
    manifests = {path: read_json(path) for stage in stages(settings) for path in stage.manifest_paths}
    try:
        written = {
            name: seen["sha256"] for manifest in manifests.values() for name, seen in manifest["outputs"].items()
        }
        return [_row(stage, [manifests[path] for path in stage.manifest_paths], written) for stage in stages(settings)]
    except (KeyError, TypeError, AttributeError) as error:
        where = ", ".join(map(str, manifests))
        raise LabError(f"a manifest of another version: {error}", where=where, mend="`make demo` repeats it") from None


def _row(stage: Stage, manifests: list[dict[str, Any]], written: dict[str, str]) -> StageRow:
    counts = [manifest["counts"] for manifest in manifests]
    reasons: dict[str, int] = {}
    for count in counts:
        for reason, number in count["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + number
    return {
        "stage": stage.name,
        "seconds": round(sum(manifest["seconds"] for manifest in manifests), 3),
        "in": sum(count["num_in"] for count in counts),
        "out": sum(count["num_out"] for count in counts),
        "rejected": sum(count["num_rejected"] for count in counts),
        "reasons": reasons,
        "note": "; ".join(count["note"] for count in counts if count["note"]),
        "stale": _stale(stage, manifests, written),
    }


def _stale(stage: Stage, manifests: list[dict[str, Any]], written: dict[str, str]) -> str:
    """Says so where a stage read a file that another stage has written anew since."""
    changed = {
        Path(name).name
        for manifest in manifests
        for name, seen in manifest["inputs"].items()
        if name in written and written[name] != seen["sha256"]
    }
    return f"made from an older {', '.join(sorted(changed))}; `make {stage.command}` repeats it" if changed else ""


def manifest_paths(settings: Settings) -> list[Path]:
    """Every manifest that the report shows."""
    return [path for stage in stages(settings) for path in stage.manifest_paths]


# --- training --------------------------------------------------------------------------------------------------------


def read_curve(metrics_path: Path) -> Curve:
    """Training and held-out loss from the trainer's log."""
    curve = Curve([], [])
    for entry in _metrics(metrics_path):
        if "loss" in entry:
            curve.train.append((entry["step"], float(entry["loss"])))
        if "eval_loss" in entry:
            curve.held_out.append((entry["step"], float(entry["eval_loss"])))
    return curve


def _metrics(metrics_path: Path) -> Iterator[dict[str, Any]]:
    for number, text in numbered_lines(metrics_path):
        try:
            yield json.loads(text)
        except json.JSONDecodeError as error:
            mend = "`make train` writes it anew"
            raise LabError(f"not JSON: {error.msg}", where=f"{metrics_path}:{number}", mend=mend) from None


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluation_paths(settings: Settings) -> dict[str, tuple[Path, Path]]:
    """Figures and predictions of each contender; the quantized model's may be missing."""
    folder = settings.run_dir / "evaluation"
    paths = {name: (folder / f"{name}.json", folder / f"{name}.jsonl") for name in CONTENDERS}
    if not paths["quantized"][0].exists():
        del paths["quantized"]
    for name, pair in paths.items():
        for path in pair:
            need(path, EVALUATE_QUANTIZED if name == "quantized" else "evaluate")
    return paths


def read_predictions(settings: Settings, chats: dict[str, Chat]) -> dict[str, dict[tuple[str, int], Prediction]]:
    """Each contender's predictions by conversation and turn.

    Raises LabError where the contenders did not answer the same turns of today's dataset: their shares would not
    compare.
    """
    predictions: dict[str, dict[tuple[str, int], Prediction]] = {}
    asked = {(chat.id, turn) for chat in chats.values() for turn in chat.target_indices}
    for name, (_, path) in evaluation_paths(settings).items():
        predictions[name] = {(found.chat_id, found.turn): found for found in read_jsonl(path, Prediction)}
        if predictions[name].keys() != asked:
            command = EVALUATE_QUANTIZED if name == "quantized" else "evaluate"
            raise LabError(
                "its answers are to other turns than dataset/eval.jsonl has now",
                where=str(path),
                mend=f"`make {command}` writes it anew",
            )
    return predictions
