"""Merges the adapter into the base model.

Reads the run's `adapter/` and the base model; writes `merged/`: 16-bit safetensors, tokenizer, chat template,
generation config. Servers and llama.cpp's converter take whole models: one file format, no adapter to forget.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import store
from lab.config import Settings
from lab.errors import GateError
from lab.export.tokenizer_files import restore_for_llama_cpp
from lab.models import base_files, load_tuned, model_files
from lab.store import Outcome, Step
from lab.tokens import load_tokenizer

if TYPE_CHECKING:
    import torch

STAGE = "merge"
MAX_SHARD_SIZE = "4GB"


def run(settings: Settings) -> Outcome:
    """Merge, unless `merged/` is up to date; raises GateError where the adapter changes nothing."""
    adapter_dir = store.need(settings.run_dir / "adapter", "train")
    step = Step(
        STAGE,
        settings.run_dir / "merged.manifest.json",
        [*model_files(adapter_dir), *base_files(settings)],
        {"model": settings.model},
        ("export/merge.py", "export/tokenizer_files.py", "models.py"),
    )
    if not settings.force and (done := store.current(step)):
        return done
    started = time.time()
    merged_dir = settings.run_dir / "merged"
    with store.atomic_dir(merged_dir) as partial:
        num_adapted, num_changed, dtype = merge_weights(settings, adapter_dir, partial)
        save_tokenizer(settings, adapter_dir, partial)
    note = f"{num_changed} of {num_adapted} adapted weights changed, {dtype}"
    return store.finish(step, Outcome(STAGE, num_adapted, num_changed, outputs=[merged_dir], note=note), started)


def merge_weights(settings: Settings, adapter_dir: Path, out_dir: Path) -> tuple[int, int, str]:
    """Save base plus adapter; returns the number of adapted weights, of those that changed, and the number format."""
    model: Any = load_tuned(settings, adapter_dir)
    dtype = sixteen_bit(model.dtype)
    adapted = _adapted_weights(model)
    before = {name: _digest(weight, dtype) for name, weight in adapted.items()}
    merged = model.merge_and_unload()
    after = {name: _digest(merged.get_submodule(name).weight, dtype) for name in before}
    num_changed = sum(before[name] != after[name] for name in before)
    if not num_changed:
        raise GateError(
            "the merged weights equal the base's: the adapter says nothing",
            where=str(adapter_dir),
            mend="train longer or with a higher LLM_TRAINING__LEARNING_RATE (`make train`)",
        )
    merged.to(dtype).save_pretrained(out_dir, max_shard_size=MAX_SHARD_SIZE)
    return len(before), num_changed, str(dtype).removeprefix("torch.")


def sixteen_bit(dtype: torch.dtype) -> torch.dtype:
    """A 16-bit checkpoint keeps its format; anything wider becomes bfloat16.

    bfloat16 has float32's range. float16 is finer by three bits but ends at 65504, which activations of a model that
    was trained in bfloat16 or float32 pass, and then every answer is NaN. In the GGUF the weights are float16 again,
    which loses none of bfloat16's digits, and llama.cpp sums in float32.
    """
    import torch

    return dtype if dtype in {torch.float16, torch.bfloat16} else torch.bfloat16


def _adapted_weights(model: Any) -> dict[str, Any]:
    """Base weights under an adapter, by their name in the merged model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name.removeprefix("base_model.model."): module.get_base_layer().weight
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def _digest(weight: torch.Tensor, dtype: torch.dtype) -> bytes:
    """A hash of the weight as it would be saved: a change that rounding swallows is none."""
    import torch

    return hashlib.sha256(weight.detach().to(dtype).cpu().contiguous().view(torch.uint8).numpy().data).digest()


def save_tokenizer(settings: Settings, adapter_dir: Path, out_dir: Path) -> None:
    """Save the tokenizer and chat template that were trained with, complete for llama.cpp's converter."""
    trained_with = (adapter_dir / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(
        str(adapter_dir) if trained_with else settings.base_model_path,
        revision=None if trained_with else settings.model.revision,
        trust_remote_code=settings.model.trust_remote_code,
    )
    tokenizer.save_pretrained(out_dir)
    restore_for_llama_cpp(
        out_dir,
        settings.base_model_path,
        revision=settings.model.revision,
        adds_bos=tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id],
    )
