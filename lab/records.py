"""The contracts between stages: what one line of a JSON Lines file on the data volume may hold.

`Observation` is one logged LLM call, `Chat` is one conversation to train on, `Reject` is a record that was put aside.
Messages and tools are OpenAI's; `tool_calls[].function.arguments` stays a JSON string on disk.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def parse_json(text: str) -> Any:
    """A JSON value; raises ValueError, also for what Python's reader lets pass (NaN) or gives up on (depth)."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def parse_arguments(text: str) -> dict[str, Any]:
    """Arguments of a tool call as a dict; raises ValueError where they are not a JSON object."""
    try:
        arguments = parse_json(text)
    except ValueError as error:
        raise ValueError(f"tool arguments are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError("tool arguments are not a JSON object")
    return arguments


def _check_arguments(text: str) -> str:
    parse_arguments(text)
    return text


class Record(BaseModel):
    """A line of a file: unknown fields are errors, values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, serialize_by_alias=True, validate_by_name=True)


class Function(Record):
    """Name and arguments (a JSON object as text) of a call."""

    name: str = Field(min_length=1)
    arguments: Annotated[str, AfterValidator(_check_arguments)]


class ToolCall(Record):
    """One call of an assistant message."""

    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: Function


class Message(Record):
    """One message in OpenAI's form."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.role == "assistant":
            if not (self.content or self.tool_calls):
                raise ValueError("an assistant message needs content or tool calls")
        elif self.content is None:
            raise ValueError(f"a {self.role} message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message has tool calls")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs a tool_call_id")
        return self

    def to_openai(self) -> dict[str, Any]:
        """The message as OpenAI's API takes it: absent keys left out, `content` kept."""
        return {"role": self.role, "content": self.content, **self.model_dump(exclude_none=True)}


class Origin(Record):
    """Where a conversation comes from."""

    source: str
    ids: list[str]
    """Ids of the observations that it was made of."""
    model: str | None = None
    group: str
    """What must stay on one side of the split: the session."""
    split: Literal["train", "eval"] | None = None
    """The side that the user chose by naming evaluation files."""


class Observation(Record):
    """One logged LLM call, in Langfuse's shape; `input` and `output` are normalized to OpenAI's messages."""

    schema_: Literal["observation/1"] = Field("observation/1", alias="schema")
    id: str
    trace_id: str
    session_id: str | None = None
    type: str = "GENERATION"
    name: str | None = None
    model: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    input: list[Message]
    output: Message
    tools: list[dict[str, Any]] | None = None
    """Tool definitions of the call; None where the log does not say, [] where there were none."""
    usage: dict[str, Any] = {}
    level: str = "DEFAULT"
    status_message: str | None = None
    scores: list[dict[str, Any]] = []
    metadata: dict[str, Any] = {}
    source: str


class Chat(Record):
    """One conversation to train on; every assistant message is a target."""

    schema_: Literal["chat/1"] = Field("chat/1", alias="schema")
    id: str
    messages: list[Message]
    tools: list[dict[str, Any]] = []
    origin: Origin

    @model_validator(mode="after")
    def _is_trainable(self) -> Self:
        if not self.messages or self.messages[-1].role != "assistant":
            raise ValueError("a conversation ends with an assistant message")
        return self

    @property
    def target_indices(self) -> list[int]:
        """Positions of the assistant messages."""
        return [index for index, message in enumerate(self.messages) if message.role == "assistant"]


class Reject(Record):
    """A record that was put aside, and why."""

    id: str | None = None
    reason: str
    detail: str
    file: str
    line: int


class Prediction(Record):
    """What one contender answered at one assistant turn of a held-out conversation."""

    chat_id: str
    turn: int
    """Position of the assistant message in the conversation."""
    expected: dict[str, Any]
    """The logged answer: `content`, and `calls` as a list of {name, arguments}."""
    text: str
    calls: list[dict[str, Any]]
    """Parsed calls of the answer, each {name, arguments}."""
    exact: bool | None = None
    """Same calls with equal arguments; None where no call was expected."""


def stable_id(*parts: str) -> str:
    """16 hex digits that depend on the parts alone."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
