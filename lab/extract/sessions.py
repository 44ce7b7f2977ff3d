"""One line of a session log, `{"request": {system, tools, messages}, "response": {...}}`, as an Observation.

Reads text and writes nothing; tool calls may stand in `tool_calls` or, as JSON, in `content`.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from lab.records import Message, Observation, parse_json, stable_id
from lab.store import describe

KEPT_KEYS = ("role", "content", "reasoning_content", "tool_call_id", "name")


class Unusable(ValueError):
    """This line cannot be trained on; `reason` is the word in the rejects file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_call(text: str, *, session_id: str, line: int, split: str | None = None) -> Observation:
    """The call that a line of a session log holds; raises Unusable with the reason where it holds none."""
    record = _parse(text)
    request, response = _part(record, "request"), _part(record, "response")
    identity = stable_id(session_id, str(line))
    return Observation(
        id=_text(record.get("id")) or identity,
        trace_id=session_id,
        session_id=session_id,
        model=_text(record.get("model") or request.get("model")),
        start_time=_text(record.get("timestamp")),
        input=_input(request, identity),
        output=_output(response, identity),
        tools=_tools(request),
        metadata={"line": line} | ({"split": split} if split else {}),
        source="sessions",
    )


def _parse(text: str) -> dict[str, Any]:
    try:
        text.encode()
        record = parse_json(text)
        if "\\ud" in text.lower():  # half a surrogate pair is valid JSON, but no text that can be written again
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unusable("unparseable_input", "not UTF-8 text") from None
    except ValueError as error:
        raise Unusable("unparseable_input", f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise Unusable("unparseable_input", "the line is not a JSON object")
    return record


def _text(value: object) -> str | None:
    """A value that some agents log as a number, such as a time or an id."""
    return None if value is None else str(value)


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    if not isinstance(part, dict):
        raise Unusable("empty_output" if name == "response" else "unparseable_input", f"no object under {name!r}")
    return part


def _tools(request: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Tool definitions as logged; None where the log does not say."""
    tools = request.get("tools")
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Unusable("unparseable_input", "tools is not a list of objects")
    return tools


def _input(request: dict[str, Any], identity: str) -> list[Message]:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Unusable("empty_input", "request.messages is empty")
    system = request.get("system")
    spoken = [_message(message, f"{identity}-{index}") for index, message in enumerate(messages)]
    if system and spoken[0].role != "system":
        return [_message({"role": "system", "content": system}, identity), *spoken]
    return spoken


def _output(response: dict[str, Any], identity: str) -> Message:
    if not (response.get("content") or response.get("tool_calls")):
        raise Unusable("empty_output", "the response has neither content nor tool calls")
    message = _message({"role": "assistant", **response}, f"{identity}-out")
    if message.role != "assistant":
        raise Unusable("unparseable_input", f"the response has the role {message.role!r}")
    return message


def _message(value: object, identity: str) -> Message:
    """A logged message in OpenAI's form; `identity` names calls that came without an id."""
    if not isinstance(value, dict):
        raise Unusable("unparseable_input", "a message is not an object")
    fields = {key: value[key] for key in KEPT_KEYS if value.get(key) is not None}
    if fields.get("role") == "developer":  # OpenAI's newer name of the system role
        fields["role"] = "system"
    calls = value.get("tool_calls") or _calls_in_content(fields)
    if not isinstance(calls, list):
        raise Unusable("unparseable_input", "tool_calls is not a list")
    if calls:
        fields["tool_calls"] = [_call(call, f"call_{identity}_{index}") for index, call in enumerate(calls)]
    try:
        return Message.model_validate(fields)
    except ValidationError as error:
        detail = describe(error)
        raise Unusable(
            "invalid_tool_arguments" if "tool arguments" in detail else "unparseable_input", detail
        ) from None


def _calls_in_content(fields: dict[str, Any]) -> list[Any]:
    """Calls that an assistant's content holds as a JSON list; the content is taken out then."""
    content = fields.get("content")
    if fields.get("role") != "assistant" or content is None:
        return []
    try:
        value = parse_json(content) if isinstance(content, str) and content.lstrip().startswith("[") else content
    except ValueError:
        return []
    if not isinstance(value, list) or not value or not all(_looks_like_call(item) for item in value):
        return []
    del fields["content"]
    return value


def _looks_like_call(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    function = item.get("function", item)
    return isinstance(function, dict) and "name" in function and "arguments" in function


def _call(call: object, call_id: str) -> dict[str, Any]:
    """A tool call in OpenAI's form; arguments that were logged as an object become JSON text."""
    if not _looks_like_call(call):
        raise Unusable("unparseable_input", "a tool call has no name or arguments")
    assert isinstance(call, dict)
    function = call.get("function", call)
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": call.get("id") or call_id,
        "type": "function",
        "function": {"name": function["name"], "arguments": text},
    }
