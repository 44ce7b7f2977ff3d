"""A small world for the tests: an agent's logged sessions in the seed's format, pretraining text, a tool catalogue.

Deterministic and independent of data/samples, so that no test depends on what the sample data says today.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from lab.config import Settings, load
from lab.records import Chat, Function, Message, Origin, ToolCall

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = "You help a small bike shop."
NUM_SESSIONS = 14


def tool(name: str, **parameters: str) -> dict[str, Any]:
    """An OpenAI tool definition; parameters are names and JSON types."""
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": sorted(parameters)}
    return {"type": "function", "function": {"name": name, "description": f"does {name}", "parameters": schema}}


ORDER = tool("order_status", order_id="string")
REPAIR = tool("book_repair", bike="string", day="string")
TOOLS = [ORDER, REPAIR]


def logged_call(name: str, call_id: str, **arguments: Any) -> dict[str, Any]:
    """A tool call as an agent logs it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def call_line(messages: list[dict[str, Any]], response: dict[str, Any], tools: Any = TOOLS, **extra: Any) -> str:
    """A line of a session log."""
    request = {"system": SYSTEM, "tools": tools, "messages": messages}
    return json.dumps({"request": request, "response": response, **extra}, ensure_ascii=False)


def session_lines(number: int) -> list[str]:
    """A session of four calls: parallel tool calls, an answer in text, one more call, a refusal in text."""
    city = ["Lyon", "Malmö", "Porto", "Gdańsk"][number % 4]
    asked = {"role": "user", "content": f"Where are orders A-{number} and B-{number}?"}
    calls = [logged_call("order_status", f"call_{letter}", order_id=f"{letter}-{number}") for letter in "AB"]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"city": city}, ensure_ascii=False)}
        for call in calls
    ]
    told = {"role": "assistant", "content": f"Both are in {city} 🚲."}
    thanks = {"role": "user", "content": "Book a repair of the red bike on Monday."}
    booking = logged_call("book_repair", "call_C", bike="red", day="Monday")
    booked = {"role": "assistant", "content": "Booking it.", "tool_calls": [booking]}
    done = {"role": "tool", "tool_call_id": "call_C", "content": "ok"}
    refused = {"role": "assistant", "content": "It is booked. I cannot sell it, sorry."}
    turns = [asked, called, *results, told, thanks, booked, done, refused]
    answers = [index for index, message in enumerate(turns) if message["role"] == "assistant"]
    return [call_line(turns[:index], turns[index]) for index in answers]


BROKEN_LINES = {
    "not JSON": '{"request": {"messages": [',
    "empty output": call_line([{"role": "user", "content": "hm"}], {"content": ""}),
    "unknown role": call_line([{"role": "robot", "content": "hm"}], {"content": "x"}),
}


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_samples(data_dir: Path) -> None:
    """Sessions (one with broken lines), pretraining text and catalogue, where the defaults look for them."""
    for number in range(NUM_SESSIONS):
        lines = session_lines(number) + (list(BROKEN_LINES.values()) if number == 3 else [])
        write_lines(data_dir / "samples" / "sessions" / f"agent-session-{number:03}.jsonl", lines)
    write_lines(data_dir / "samples" / "pretrain.jsonl", pretrain_lines())
    (data_dir / "tool_catalogue.json").write_text(json.dumps(TOOLS), encoding="utf-8")


def pretrain_lines() -> list[str]:
    """Enough different words for a vocabulary of the real size, and chats of another world."""
    words = ["".join(parts) for parts in product(["ba", "ke", "li", "mo", "ru", "so"], repeat=4)][::2]
    texts = [json.dumps({"text": " ".join(words[start : start + 12])}) for start in range(0, len(words), 12)]
    call = logged_call("feed_cat", "call_1", cat="Mia", meal="fish")
    messages = [
        {"role": "system", "content": "You serve a town."},
        {"role": "user", "content": "Mia the cat wants fish."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
        {"role": "assistant", "content": "Done: fish."},
    ]
    chat = {"messages": messages, "tools": [tool("feed_cat", cat="string", meal="string")]}
    return texts + [json.dumps(chat)] * 6


def settings_on(data_dir: Path, **groups: Any) -> Settings:
    """Settings of the tiny model on a data volume; groups are nested values, as flags give them."""
    data = {"data_dir": data_dir, **groups.pop("data", {})}
    return load({"data": data, **groups})


def chat(*messages: Message, tools: list[dict[str, Any]] | None = None, group: str = "g", name: str = "c") -> Chat:
    origin = Origin(source="test", ids=[], group=group)
    return Chat(id=name, messages=list(messages), tools=TOOLS if tools is None else tools, origin=origin)


def user(content: str) -> Message:
    return Message(role="user", content=content)


def says(content: str | None, *calls: ToolCall) -> Message:
    return Message(role="assistant", content=content, tool_calls=list(calls) or None)


def calls(name: str, number: int = 1, **arguments: Any) -> ToolCall:
    function = Function(name=name, arguments=json.dumps(arguments, ensure_ascii=False))
    return ToolCall(id=f"call0000{number}", function=function)


def result(content: str, number: int = 1) -> Message:
    return Message(role="tool", content=content, tool_call_id=f"call0000{number}")


def run_lab(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m lab ...` (or a script, where the first argument is a .py file) as a user runs it."""
    program = (
        [sys.executable, *arguments] if arguments[0].endswith(".py") else [sys.executable, "-m", "lab", *arguments]
    )
    environment = {**os.environ, **variables}
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
