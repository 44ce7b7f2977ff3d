"""Contenders in this process: greedy answers and loss of the base and the tuned model, batched.

Reads models through lab/models.py, writes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lab.config import Settings
from lab.evaluate.metrics import predict
from lab.models import load_base, load_tuned
from lab.progress import progress
from lab.records import Chat, Prediction
from lab.tokens import IGNORE_INDEX, Renderer, load_renderer, parse_calls

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measured = tuple[list[Prediction], dict[str, Any]]


def answer_base(settings: Settings, chats: list[Chat]) -> Measured:
    """Predictions and loss of the base model."""
    return _answer(settings, "base", load_base(settings), chats)


def answer_tuned(settings: Settings, chats: list[Chat]) -> Measured:
    """Predictions and loss of the base model with the run's adapter."""
    return _answer(settings, "tuned", load_tuned(settings, settings.run_dir / "adapter"), chats)


def _answer(settings: Settings, name: str, model: PreTrainedModel, chats: list[Chat]) -> Measured:
    model.eval()
    renderer = load_renderer(settings)
    chosen = settings.evaluate
    turns = [(chat, turn) for chat in chats for turn in chat.target_indices]
    texts = generate(name, model, renderer, turns, chosen.batch_size, chosen.max_new_tokens)
    predictions = [
        predict(chat, turn, text, parse_calls(text)) for (chat, turn), text in zip(turns, texts, strict=True)
    ]
    loss = mean_loss(model, renderer, chats, chosen.batch_size)
    return predictions, {"model": settings.model.base_model, "loss": loss, "perplexity": math.exp(min(loss, 50))}


def generate(
    name: str,
    model: PreTrainedModel,
    renderer: Renderer,
    turns: list[tuple[Chat, int]],
    batch_size: int,
    max_new_tokens: int,
) -> list[str]:
    """Greedy answers, in the order of the turns. Batches hold prompts of like length, padded on the left."""
    import torch

    prompts = [renderer.prompt_ids(chat, turn) for chat, turn in turns]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts = [""] * len(prompts)
    pad_id = _pad_id(renderer)
    with progress(f"evaluate {name}", len(prompts)) as advance:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(prompts[index]) for index in chosen)
            rows = [[pad_id] * (width - len(prompts[index])) + prompts[index] for index in chosen]
            mask = [[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in chosen]
            with torch.inference_mode():
                output = model.generate(
                    input_ids=torch.tensor(rows, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    pad_token_id=pad_id,
                    eos_token_id=stop_ids(model, renderer),
                )
            for index, ids in zip(chosen, output[:, width:].tolist(), strict=True):
                texts[index] = renderer.decode_answer(ids)
            advance(len(chosen))
    return texts


def stop_ids(model: PreTrainedModel, renderer: Renderer) -> list[int]:
    """Where an answer ends: the model's own end tokens and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token_id for token_id in (*ids, renderer.tokenizer.eos_token_id) if token_id is not None})


def mean_loss(model: PreTrainedModel, renderer: Renderer, chats: list[Chat], batch_size: int) -> float:
    """Mean cross entropy in nats over all target tokens of the conversations."""
    import torch

    rows = sorted((renderer.tokenize(chat) for chat in chats), key=lambda row: len(row.input_ids))
    total, num_targets = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(len(row.input_ids) for row in batch)
        # Padding stands on the right and is not a target, so causal attention needs no mask for it.
        ids = [row.input_ids + [_pad_id(renderer)] * (width - len(row.input_ids)) for row in batch]
        labels = [row.labels + [IGNORE_INDEX] * (width - len(row.labels)) for row in batch]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor(ids, device=model.device)).logits
        targets = torch.tensor(labels, device=model.device)[:, 1:].flatten()
        total += float(
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum")
        )
        num_targets += int((targets != IGNORE_INDEX).sum())
    return total / num_targets


def _pad_id(renderer: Renderer) -> int:
    pad_id = renderer.tokenizer.pad_token_id
    return int(renderer.tokenizer.eos_token_id if pad_id is None else pad_id)
