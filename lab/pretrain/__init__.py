"""pretrain: makes the lab's own tiny base model, for machines and tests that reach no model hub.

Reads samples/pretrain.jsonl and the sample sessions' user texts, writes models/tiny: a SentencePiece tokenizer, a
ChatML template and a small Llama in safetensors, loaded by every later stage like any other model.
"""

from __future__ import annotations

import time
from pathlib import Path

from lab.config import TINY, Settings
from lab.errors import LabError
from lab.progress import progress
from lab.store import Outcome, Step, count_lines, current, finish, need

SAMPLES = "samples"


def run(settings: Settings) -> Outcome | None:
    """Tokenizer and weights, unless they are up to date. Does nothing where another base model is set."""
    tokenizer_outcome = run_tokenizer(settings)
    if tokenizer_outcome is None:
        return None
    started = time.time()
    folder = Path(settings.base_model_path)
    text_path = settings.path(SAMPLES) / "pretrain.jsonl"
    chosen = settings.pretrain.model_dump()
    inputs = [text_path, *tokenizer_outcome.outputs]
    step = Step("pretrain", folder.with_suffix(".manifest.json"), inputs, chosen, ("pretrain",))
    if not settings.force and (outcome := current(step)):
        return outcome
    from lab.pretrain.model import pretrain_model

    losses: list[float] = []
    with progress("pretrain", settings.pretrain.num_steps) as advance:

        def report(_step: int, _num_steps: int, loss: float) -> None:
            losses.append(loss)
            advance(1)

        pretrain_model(text_path, folder, seed=chosen["seed"], num_steps=chosen["num_steps"], progress=report)
    num_rows = count_lines(text_path)
    names = ("model.safetensors", "config.json", "generation_config.json")
    outcome = Outcome("pretrain", num_rows, num_rows, outputs=[folder / name for name in names])
    outcome.note = f"{chosen['num_steps']} steps, loss {losses[-1]:.3f}"
    return finish(step, outcome, started)


def run_tokenizer(settings: Settings) -> Outcome | None:
    """The tokenizer alone, which needs no PyTorch. Does nothing where another base model is set."""
    if settings.model.base_model != TINY:
        return None
    started = time.time()
    folder = Path(settings.base_model_path)
    text_path = settings.path(SAMPLES) / "pretrain.jsonl"
    if not text_path.exists():
        raise LabError(
            "the sample text is not there", where=str(text_path), mend="`git checkout data/samples` brings it back"
        )
    session_paths = sorted((settings.path(SAMPLES) / "sessions").glob("*.jsonl"))
    manifest_path = folder.with_name(f"{folder.name}-tokenizer.manifest.json")
    step = Step("pretrain", manifest_path, [text_path, *session_paths], {}, ("pretrain",))
    if not settings.force and (outcome := current(step)):
        return outcome
    from lab.pretrain.tokenizer import train_tokenizer

    train_tokenizer(text_path, session_paths, folder)
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")
    outcome = Outcome(
        "pretrain", count_lines(text_path), 1, outputs=[need(folder / name, "pretrain") for name in names]
    )
    outcome.note = "tokenizer"
    return finish(step, outcome, started)
