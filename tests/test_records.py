from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.records import Chat, Function, Message, Observation, Origin, ToolCall, parse_arguments, stable_id
from lab.store import read_jsonl, to_line, write_jsonl
from tests import world

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = text.filter(bool)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
functions = st.builds(
    Function, name=words, arguments=st.dictionaries(text, json_values, max_size=3).map(lambda value: json.dumps(value))
)
tool_calls = st.lists(st.builds(ToolCall, id=words, function=functions), min_size=1, max_size=2)
assistants = st.builds(
    Message, role=st.just("assistant"), content=words, tool_calls=st.none() | tool_calls
) | st.builds(Message, role=st.just("assistant"), tool_calls=tool_calls)
others = st.builds(Message, role=st.sampled_from(["system", "user"]), content=text) | st.builds(
    Message, role=st.just("tool"), content=text, tool_call_id=words
)
chats = st.builds(
    Chat,
    id=text,
    messages=st.builds(lambda before, last: [*before, last], st.lists(others | assistants, max_size=4), assistants),
    tools=st.lists(st.dictionaries(text, json_values, max_size=2), max_size=2),
    origin=st.builds(Origin, source=text, ids=st.lists(text), model=st.none() | text, group=text),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(written=st.lists(chats, max_size=3))
def test_any_conversation_comes_back_from_a_file_as_it_was(written: list[Chat], tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    assert write_jsonl(path, written) == len(written)
    assert list(read_jsonl(path, Chat)) == written


@settings(max_examples=40, deadline=None)
@given(chats)
def test_a_line_holds_the_schema_and_ends_with_its_only_line_feed(chat: Chat) -> None:
    line = to_line(chat)
    assert json.loads(line)["schema"] == "chat/1"
    assert line.endswith("\n")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"role": "assistant"}, "needs content or tool calls"),
        ({"role": "assistant", "content": ""}, "needs content or tool calls"),
        ({"role": "assistant", "content": "", "tool_calls": []}, "needs content or tool calls"),
        ({"role": "user"}, "a user message needs content"),
        ({"role": "tool", "content": "x"}, "needs a tool_call_id"),
        ({"role": "robot", "content": "x"}, "'system', 'user', 'assistant' or 'tool'"),
        ({"role": "user", "content": 5}, "valid string"),
        ({"role": "user", "content": "x", "mood": "good"}, "Extra inputs are not permitted"),
    ],
)
def test_a_message_that_breaks_a_rule_is_refused(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Message.model_validate(fields)


def test_only_an_assistant_may_call_tools() -> None:
    with pytest.raises(ValidationError, match="a user message has tool calls"):
        Message(role="user", content="x", tool_calls=[world.calls("a")])


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_user_message_is_allowed(empty: str) -> None:
    assert world.user(empty).content == empty


@pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '"{}"', '{"a": NaN}', '{"a":' * 5000, '{"a": 1} x'])
def test_arguments_must_be_a_json_object_in_text(arguments: str) -> None:
    with pytest.raises(ValueError, match="tool arguments are not"):
        parse_arguments(arguments)
    with pytest.raises(ValidationError, match="tool arguments are not"):
        Function(name="f", arguments=arguments)


def test_arguments_stay_the_text_that_was_logged() -> None:
    logged = '{ "a":1,\n"b" : "é" }'
    assert Function(name="f", arguments=logged).arguments == logged
    assert parse_arguments(logged) == {"a": 1, "b": "é"}


def test_values_are_never_coerced() -> None:
    with pytest.raises(ValidationError):
        Origin(source="s", ids=("a",), group="g")  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        Observation.model_validate({"id": 1, "trace_id": "t", "input": [], "output": {}, "source": "s"})


@pytest.mark.parametrize("messages", [[], [world.user("x")], [world.says("x"), world.user("y")]])
def test_a_conversation_ends_with_an_assistant_message(messages: list[Message]) -> None:
    with pytest.raises(ValidationError, match="ends with an assistant message"):
        world.chat(*messages)


def test_every_assistant_message_is_a_target() -> None:
    chat = world.chat(world.user("a"), world.says("b"), world.user("c"), world.says(None, world.calls("f")))
    assert chat.target_indices == [1, 3]


def test_openai_gets_content_null_beside_tool_calls_and_no_other_empty_key() -> None:
    sent = world.says(None, world.calls("f", a=1)).to_openai()
    assert sent == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        ],
    }
    assert world.user("hi").to_openai() == {"role": "user", "content": "hi"}


def test_a_stable_id_depends_on_its_parts_and_their_borders_alone() -> None:
    assert stable_id("a", "b") == stable_id("a", "b")
    assert len({stable_id("a", "b"), stable_id("ab"), stable_id("b", "a")}) == 3
    assert len(stable_id("a")) == 16
