"""The contender behind an endpoint: the quantized model as its users meet it.

Reads answers over the OpenAI-compatible API and the GGUF's weights for the loss; writes nothing.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.config import Settings
from lab.endpoint import Endpoint
from lab.evaluate import gguf_path, served_endpoint
from lab.evaluate.local import mean_loss
from lab.evaluate.metrics import predict
from lab.models import quiet_loading
from lab.progress import progress
from lab.records import Chat, Prediction
from lab.tokens import Renderer, load_renderer, parse_calls


def answer_served(settings: Settings, chats: list[Chat]) -> tuple[list[Prediction], dict[str, Any]]:
    """Predictions over the wire; loss of the same GGUF's weights, dequantized by Transformers."""
    url, name = served_endpoint(settings)
    endpoint = Endpoint(url, name)
    renderer = load_renderer(settings)
    turns = [(chat, turn) for chat in chats for turn in chat.target_indices]
    with (
        ThreadPoolExecutor(settings.evaluate.concurrency) as pool,
        progress("evaluate quantized", len(turns)) as advance,
    ):

        def ask(place: tuple[Chat, int]) -> Prediction:
            prediction = ask_turn(endpoint, renderer, *place, settings.evaluate.max_new_tokens)
            advance(1)
            return prediction

        predictions = list(pool.map(ask, turns))
    loss = gguf_loss(settings, renderer, chats)
    note = f"answers by {url}; loss of the dequantized {settings.serve.quant} weights in Transformers"
    return predictions, {"model": name, "loss": loss, "perplexity": math.exp(min(loss, 50)), "note": note}


def ask_turn(endpoint: Endpoint, renderer: Renderer, chat: Chat, turn: int, max_new_tokens: int) -> Prediction:
    """The served model's greedy answer to everything before one assistant turn."""
    answer = endpoint.chat(
        renderer.served_messages(chat, turn), renderer.served_tools(chat), max_tokens=max_new_tokens, temperature=0.0
    )
    return predict(chat, turn, answer.content, answer.calls or parse_calls(answer.content))


def gguf_loss(settings: Settings, renderer: Renderer, chats: list[Chat]) -> float:
    """Mean loss with the weights that the GGUF holds."""
    from transformers import AutoModelForCausalLM

    quiet_loading()
    path: Path = gguf_path(settings)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    model.eval()
    return mean_loss(model, renderer, chats, settings.evaluate.batch_size)
