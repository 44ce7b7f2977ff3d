"""What counts as right: the same tools with equal arguments.

Pure functions over values; reads and writes nothing.
"""

from __future__ import annotations

import json
from typing import Any

from lab.records import Chat, Message, Prediction, parse_arguments


def expected_calls(message: Message) -> list[dict[str, Any]]:
    """The logged calls of an assistant message, each {name, arguments}."""
    return [
        {"name": call.function.name, "arguments": parse_arguments(call.function.arguments)}
        for call in message.tool_calls or []
    ]


def same_calls(expected: list[dict[str, Any]], calls: list[dict[str, Any]]) -> bool:
    """Exact match: as many calls, and each expected one is there with equal arguments, in whatever order.

    Arguments are compared as JSON values: 1 equals 1.0, true does not equal 1.
    """
    return sorted(map(_canonical, expected)) == sorted(map(_canonical, calls))


def _canonical(call: dict[str, Any]) -> str:
    arguments = call["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return f"unparseable {arguments}"
    return json.dumps([call["name"], _numbers(arguments)], sort_keys=True, ensure_ascii=False)


def _numbers(value: Any) -> Any:
    """Whole floats as integers, since JSON has one kind of number."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def predict(chat: Chat, turn: int, text: str, calls: list[dict[str, Any]]) -> Prediction:
    """A contender's answer at one assistant turn beside the logged one."""
    message = chat.messages[turn]
    expected = expected_calls(message)
    return Prediction(
        chat_id=chat.id,
        turn=turn,
        expected={"content": message.content, "calls": expected},
        text=text,
        calls=calls,
        exact=same_calls(expected, calls) if expected else None,
    )


def summarize(predictions: list[Prediction]) -> dict[str, Any]:
    """Counts and shares: exact tool calls where calls were logged, and restraint where text was."""
    with_calls = [prediction for prediction in predictions if prediction.exact is not None]
    in_text = [prediction for prediction in predictions if prediction.exact is None]
    num_exact = sum(prediction.exact is True for prediction in with_calls)
    num_silent = sum(not prediction.calls for prediction in in_text)
    return {
        "tool_call_exact": num_exact / len(with_calls) if with_calls else None,
        "num_exact": num_exact,
        "num_tool_calls": len(with_calls),
        "num_text": len(in_text),
        "num_text_without_calls": num_silent,
        "num_turns": len(predictions),
    }
