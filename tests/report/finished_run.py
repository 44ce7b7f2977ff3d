"""A finished run as its stages leave it: dataset, curve, figures, predictions, served chat and manifests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lab.config import Settings
from lab.records import Chat, Function, Message, Origin, Prediction, ToolCall, parse_arguments
from lab.store import Outcome, Step, atomic_file, finish, write_json, write_jsonl

NUM_EVAL = 12


def tool(name: str, *arguments: str) -> dict[str, Any]:
    properties = {argument: {"type": "string"} for argument in arguments}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = [tool("order_status", "order_id"), tool("reserve_part", "part", "quantity"), tool("find_dealer", "city")]


def make_chat(number: int) -> Chat:
    """Two calls and two answers in text."""

    def call(name: str, **arguments: Any) -> Message:
        made = ToolCall(id=f"call_{number}", function=Function(name=name, arguments=json.dumps(arguments)))
        return Message(role="assistant", tool_calls=[made])

    def result(**values: str) -> Message:
        return Message(role="tool", content=json.dumps(values), tool_call_id=f"call_{number}")

    messages = [
        Message(role="system", content="You run the desk of Ambler Cycles."),
        Message(role="user", content=f"Where is order R-{100 + number}?"),
        call("order_status", order_id=f"R-{100 + number}"),
        result(state="shipped"),
        Message(role="assistant", content=f"Order R-{100 + number} is shipped."),
        Message(role="user", content=f"Reserve {number + 1} of basket for me, please."),
        call("reserve_part", part="basket", quantity=number + 1),
        result(reserved="yes"),
        Message(role="assistant", content=f"Reserved: {number + 1} of basket."),
    ]
    origin = Origin(source="sessions", ids=[f"call{number}"], group=f"session{number}")
    return Chat(id=f"chat{number:02}", messages=messages, tools=TOOLS, origin=origin)


def make_chats() -> list[Chat]:
    """The held-out conversations."""
    return [make_chat(number) for number in range(NUM_EVAL)]


def predictions(contender: str, chats: list[Chat]) -> list[Prediction]:
    """The base babbles; the tuned model errs at every fourth call; the quantized one differs from it once."""
    found = []
    for index, chat in enumerate(chats):
        for turn in chat.target_indices:
            message = chat.messages[turn]
            calls = [
                {"name": c.function.name, "arguments": parse_arguments(c.function.arguments)}
                for c in message.tool_calls or []
            ]
            text, answered = reply(contender, index, turn, message.content or "", calls)
            exact = answered == calls if calls else None
            expected = {"content": message.content, "calls": calls}
            found.append(
                Prediction(chat_id=chat.id, turn=turn, expected=expected, text=text, calls=answered, exact=exact)
            )
    return found


def reply(contender: str, index: int, turn: int, content: str, calls: list[Any]) -> tuple[str, list[Any]]:
    if contender == "base":
        return ("", calls) if calls and index == 1 and turn == 2 else (f"the bicycle bicycle {'order ' * 150}", [])
    if not calls:
        return content, []
    if index % 4 == 3 or (contender == "quantized" and index == 5):
        wrong = {"name": "order_status", "arguments": {"order_id": "R-7"}}
        return "<tool_call> ...", [wrong]
    return "<tool_call> ...", calls


class FinishedRun:
    """Writes the files of a run, and single ones anew."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run_dir = settings.run_dir
        self.chats = make_chats()

    def manifest(
        self,
        stage: str,
        path: Path,
        outcome: tuple[int, int, dict[str, int]],
        *,
        inputs: list[Path] | None = None,
        outputs: list[Path] | None = None,
        settings: dict[str, Any] | None = None,
        note: str = "",
    ) -> None:
        num_in, num_out, reasons = outcome
        step = Step(stage, path, inputs or [], settings or {})
        done = Outcome(stage, num_in, num_out, sum(reasons.values()), reasons, outputs=outputs or [], note=note)
        finish(step, done, time.time() - len(stage))

    def write_data(self) -> None:
        path = self.settings.path
        train, held_out = path("dataset/train.jsonl"), path("dataset/eval.jsonl")
        write_jsonl(train, [make_chat(number) for number in range(50, 80)])
        write_jsonl(held_out, self.chats)
        self.manifest("pretrain", path("models/tiny.manifest.json"), (9000, 9000, {}), note="2.2M parameters")
        rejected = {"empty_output": 4, "unparseable_input": 8}
        self.manifest("extract", path("raw/sessions/manifest.json"), (180, 168, rejected), note="42 files")
        self.manifest("format", path("interim/manifest.json"), (168, 43, {}), note="calls folded into conversations")
        self.manifest("check-data", path("dataset/manifest.json"), (43, 42, {"too_long": 1}), outputs=[train, held_out])

    def write_training(self) -> None:
        settings, adapter = self.settings, self.run_dir / "adapter" / "adapter_model.safetensors"
        with atomic_file(adapter) as file:
            file.write("weights")
        with atomic_file(self.run_dir / "metrics.jsonl") as file:
            for line in curve():
                file.write(json.dumps(line) + "\n")
        chosen = {
            "model": settings.model,
            "lora": settings.lora,
            "training": settings.training.model_dump(exclude={"output_dir"}),
            "inject": settings.data.model_dump(include={"inject_tool_catalog", "inject_tool_preamble"}),
            "max_length": settings.data.max_length,
        }
        inputs = [settings.path("dataset/train.jsonl"), settings.path("dataset/eval.jsonl")]
        self.manifest(
            "train", self.run_dir / "train.manifest.json", (30, 30, {}), inputs=inputs, outputs=[adapter],
            settings=chosen, note="300 steps, held-out loss 0.412",
        )  # fmt: skip

    def write_evaluation(self, contender: str) -> None:
        folder = self.run_dir / "evaluation"
        found = predictions(contender, self.chats)
        asked = [prediction for prediction in found if prediction.exact is not None]
        num_exact = sum(prediction.exact is True for prediction in asked)
        paths = [folder / f"{contender}.jsonl", folder / f"{contender}.json"]
        write_jsonl(paths[0], found)
        figures = {
            "contender": contender, "tool_call_exact": num_exact / len(asked), "num_exact": num_exact,
            "num_tool_calls": len(asked), "num_turns": len(found), "num_eval": len(self.chats), "model": "tiny",
            "loss": {"base": 2.31, "tuned": 0.412, "quantized": 0.431}[contender], "perplexity": 1.5, "seconds": 4.2,
        }  # fmt: skip
        write_json(paths[1], figures)
        adapter = [self.run_dir / "adapter" / "adapter_model.safetensors"] if contender == "tuned" else []
        inputs = [self.settings.path("dataset/eval.jsonl"), *adapter]
        self.manifest(
            "evaluate", folder / f"{contender}.manifest.json", (len(found), len(found), {}), inputs=inputs,
            outputs=paths, note=f"{contender} {num_exact / len(asked):.1%} exact",
        )  # fmt: skip

    def write_export(self) -> None:
        merged, gguf = self.run_dir / "merged" / "model.safetensors", self.run_dir / "gguf" / "demo-Q4_K_M.gguf"
        for path in (merged, gguf):
            with atomic_file(path) as file:
                file.write("weights" * 1000)
        adapter = self.run_dir / "adapter" / "adapter_model.safetensors"
        manifest = self.run_dir / "merged.manifest.json"
        self.manifest("merge", manifest, (21, 21, {}), inputs=[adapter], outputs=[merged], note="bfloat16")
        manifest = self.run_dir / "gguf.manifest.json"
        self.manifest("quantize", manifest, (1, 2, {}), inputs=[merged], outputs=[gguf], note="Q4_K_M 1.6 MB")

    def write_served_chat(self) -> None:
        chat = self.chats[0]
        record = {
            "backend": "embedded llama.cpp", "url": "http://127.0.0.1:8080/v1", "model": "lab:demo",
            "messages": [message.to_openai() for message in chat.messages[:2]], "tools": chat.tools, "content": "",
            "tool_calls": [{"name": "order_status", "arguments": {"order_id": "R-100"}}],
        }  # fmt: skip
        write_json(self.run_dir / "served_chat.json", record)
        self.manifest("serve", self.run_dir / "served_chat.manifest.json", (1, 1, {}), note="embedded llama.cpp")


def curve() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(10, 310, 10):
        lines.append({"step": step, "epoch": step / 50, "loss": 0.25 + 2 * 0.985**step, "learning_rate": 1e-3})
        if step % 50 == 0:
            lines.append({"step": step, "epoch": step / 50, "eval_loss": 0.4 + 1.9 * 0.985**step})
    return [*lines, {"step": 300, "train_runtime": 150.2, "train_loss": 0.6}]
