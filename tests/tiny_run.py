"""A run made in seconds: a random Llama with a SentencePiece vocabulary, an adapter, held-out conversations, tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.config import Settings, load
from lab.records import Chat, Function, Message, Origin, ToolCall
from lab.store import write_json, write_jsonl

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "order_status",
        "description": "status of an order",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    },
}


def settings_of(data_dir: Path, **groups: dict[str, Any]) -> Settings:
    """Settings of the run `demo` on `data_dir`."""
    training = {"output_dir": "runs/demo"}
    return load({"data": {"data_dir": data_dir, "max_length": 256}, "training": training, **groups})


def make_chat(number: int) -> Chat:
    call = ToolCall(id="call00001", function=Function(name="order_status", arguments=f'{{"order_id": "A-{number}"}}'))
    messages = [
        Message(role="user", content=f'Where is order A-{number}?\n"naïve" — C:\\new'),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content='{"state": "shipped\\n"}', tool_call_id="call00001"),
        Message(role="assistant", content="It is shipped."),
    ]
    return Chat(id=f"chat{number}", messages=messages, tools=[TOOL], origin=Origin(source="s", ids=[], group="g"))


def write_inputs(data_dir: Path, num_chats: int = 3) -> None:
    """The held-out conversations and the tool catalogue."""
    write_jsonl(data_dir / "dataset" / "eval.jsonl", [make_chat(number) for number in range(num_chats)])
    write_json(data_dir / "tool_catalogue.json", [TOOL])


def make_base(model_dir: Path) -> None:
    """A one-layer Llama with the lab's own kind of tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lab.pretrain.tokenizer import train_tokenizer

    text = model_dir.parent / "text.jsonl"
    words = "where is the order it is shipped status of an order user assistant system tool and nothing else"
    rows = [{"text": f"{words} {json.dumps(TOOL['function'])}"}] * 3
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_tokenizer(text, [], model_dir, vocab_size=340)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(model_dir)


def make_adapter(base_dir: Path, adapter_dir: Path, *, changes: bool = True) -> None:
    """A random adapter; with `changes=False` one whose update is zero, as before any training."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base_dir)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=changes is False)
    get_peft_model(model, config).save_pretrained(adapter_dir)
    AutoTokenizer.from_pretrained(base_dir).save_pretrained(adapter_dir)
