from __future__ import annotations

import json
from typing import Any

import pytest

from lab.evaluate.metrics import expected_calls, predict, same_calls, summarize
from lab.records import Prediction
from lab.store import to_line
from tests import world


def one(name: str = "f", arguments: Any = None) -> dict[str, Any]:
    return {"name": name, "arguments": {} if arguments is None else arguments}


PAIRS = [
    ([one()], [one()], True),
    ([one()], [], False),
    ([one()], [one("g")], False),
    ([one()], [one(), one()], False),
    ([one(), one()], [one()], False),
    ([one("f"), one("g")], [one("g"), one("f")], True),
    ([one("f", {"a": 1}), one("f", {"a": 2})], [one("f", {"a": 2}), one("f", {"a": 1})], True),
    ([one("f", {"a": 1}), one("f", {"a": 2})], [one("f", {"a": 1}), one("f", {"a": 1})], False),
    ([one("f", {"a": 1, "b": 2})], [one("f", {"b": 2, "a": 1})], True),
    ([one("f", {"a": 1})], [one("f", {"a": 1, "b": None})], False),
    ([one("f", {"a": 1})], [one("f", {"a": 1.0})], True),
    ([one("f", {"a": [1, {"b": 2.0}]})], [one("f", {"a": [1.0, {"b": 2}]})], True),
    ([one("f", {"a": 1})], [one("f", {"a": True})], False),
    ([one("f", {"a": 0})], [one("f", {"a": False})], False),
    ([one("f", {"a": 1})], [one("f", {"a": "1"})], False),
    ([one("f", {"a": "Lyon"})], [one("f", {"a": "lyon"})], False),
    ([one("f", {"a": "Lyon"})], [one("f", {"a": "Lyon "})], False),
    ([one("f", {"a": [1, 2]})], [one("f", {"a": [2, 1]})], False),
    ([one("f", {"a": "é"})], [one("f", {"a": "\u00e9"})], True),
    ([one("f", {"a": 1})], [one("f", '{"a": 1}')], True),
    ([one("f", {"a": 1})], [one("f", "{broken")], False),
    ([one("f")], [one("f", [])], False),
    ([one("f")], [{"name": None, "arguments": {}}], False),
    ([one("f", {"a": 0.1})], [one("f", {"a": 0.1})], True),
    ([one("f", {"a": 1})], [one("f", {"a": float("inf")})], False),
]


@pytest.mark.parametrize(("expected", "answered", "same"), PAIRS)
def test_calls_are_the_same_when_names_and_arguments_are_equal_values(expected: Any, answered: Any, same: bool) -> None:
    assert same_calls(expected, answered) is same
    assert same_calls(answered, expected) is same


def test_expected_calls_are_the_logged_ones_with_parsed_arguments() -> None:
    message = world.says(None, world.calls("f", a=1), world.calls("g"))
    assert expected_calls(message) == [one("f", {"a": 1}), one("g")]
    assert expected_calls(world.says("x")) == []


def test_a_prediction_stands_beside_the_logged_answer_and_can_be_read_again() -> None:
    chat = world.chat(world.user("a"), world.says("Sure.", world.calls("f", a=1)), world.user("b"), world.says("bye"))
    called = predict(chat, 1, "text", [one("f", {"a": 1})])
    assert called.expected == {"content": "Sure.", "calls": [one("f", {"a": 1})]}
    assert called.exact is True
    assert predict(chat, 1, "text", []).exact is False
    spoken = predict(chat, 3, "bye", [])
    assert spoken.exact is None
    for prediction in (called, spoken):
        assert Prediction.model_validate(json.loads(to_line(prediction))) == prediction


def test_the_summary_counts_calls_and_restraint_apart() -> None:
    chat = world.chat(world.user("a"), world.says(None, world.calls("f", a=1)), world.user("b"), world.says("bye"))
    right, wrong = predict(chat, 1, "", [one("f", {"a": 1})]), predict(chat, 1, "", [])
    silent, hasty = predict(chat, 3, "bye", []), predict(chat, 3, "", [one()])
    assert summarize([right, wrong, wrong, right, right, silent, hasty, silent]) == {
        "tool_call_exact": 0.6,
        "num_exact": 3,
        "num_tool_calls": 5,
        "num_text": 3,
        "num_text_without_calls": 2,
        "num_turns": 8,
    }
    assert summarize([silent])["tool_call_exact"] is None
