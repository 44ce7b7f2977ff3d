"""How a run was made, and the commands that make it again.

Reads nothing itself: takes the training's manifest and the settings, returns the values that the page shows. Only
settings that differ from the defaults are told, so that the commands stay short enough to be typed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.config import TINY, TINY_RECIPE, Settings, groups, variable_name
from lab.report.collect import EVALUATE_QUANTIZED
from lab.store import plain

STAGES = "extract format check-data train evaluate merge quantize"


def made(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What decided the adapter: base model, LoRA and training settings, data, code and packages."""
    chosen = manifest["settings"]
    model, revision = chosen["model"]["base_model"], chosen["model"]["revision"]
    data = {
        Path(name).name: seen["sha256"][:12] for name, seen in manifest["inputs"].items() if name.endswith(".jsonl")
    }
    return {
        "base model": f"{model} at {revision}" if revision else str(model),
        "LoRA": _listed(chosen["lora"]),
        "training": _listed(chosen["training"]),
        "longest conversation": f"{chosen['max_length']} tokens",
        "dataset (sha256)": _listed(data),
        "commit": _commit(manifest["commit"]),
        "packages": _listed({"python": manifest["python"], **manifest["packages"]}),
        "trained at": manifest["time"],
    }


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items() if value is not None)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _commit(commit: str | None) -> str:
    if commit is None:
        return "unknown: the code was in no git repository"
    return f"{commit[:-1]} with changes that are not committed" if commit.endswith("+") else commit


def repeat_commands(settings: Settings, manifest: Mapping[str, Any]) -> list[str]:
    """Shell commands that repeat the run from its session logs."""
    commit = (manifest["commit"] or "").removesuffix("+")
    assignments = [f"export {name}={shlex.quote(value)}" for name, value in changed(settings, manifest).items()]
    return [
        *([f"git checkout {commit}"] if commit else []),
        *assignments,
        f"make {STAGES}",
        "make ollama-serve    # leave it running; the rest in a second terminal, with the same exports",
        f"make {EVALUATE_QUANTIZED}",
        "make report",
    ]


def changed(settings: Settings, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Variables whose values in this run differ from the defaults (the tiny recipe's, for the tiny model)."""
    chosen = manifest["settings"]
    used = {
        "model": chosen["model"],
        "data": {**plain(settings.data), **chosen["inject"], "max_length": chosen["max_length"]},
        "lora": chosen["lora"],
        "training": {"output_dir": str(settings.training.output_dir), **chosen["training"]},
    }
    recipe = TINY_RECIPE if chosen["model"]["base_model"] == TINY else {}
    found = {}
    for group, values in used.items():
        defaults = {**plain(groups()[group]()), **recipe.get(group, {})}
        for name, default in defaults.items():
            if values.get(name) not in (None, default):  # an older manifest may lack a newer setting
                found[variable_name([group, name])] = _text(values[name])
    return found
