"""Which held-out turns are shown, and how calls and verdicts read."""

from __future__ import annotations

from typing import Any

import pytest

from lab.records import Prediction
from lab.report.examples import KINDS, MAX_SHOWN, answer, choose, kind_of, show_call, tool_names, verdict
from tests.report.finished_run import make_chats, predictions

CHATS = make_chats()
CALL = {"name": "f", "arguments": {"a": 1}}


def predicted(*calls: dict[str, Any], exact: bool | None, expected: int = 1, text: str = "") -> Prediction:
    logged = {"content": None, "calls": [CALL] * expected}
    return Prediction(chat_id="c", turn=1, expected=logged, text=text, calls=list(calls), exact=exact)


RIGHT, NO_CALL, IN_TEXT = predicted(CALL, exact=True), predicted(exact=False), predicted(exact=None, expected=0)


@pytest.mark.parametrize(
    ("base", "tuned", "quantized", "kind"),
    [
        (NO_CALL, RIGHT, RIGHT, "learned"),
        (NO_CALL, RIGHT, None, "learned"),
        (NO_CALL, NO_CALL, NO_CALL, "tuned_wrong"),
        (RIGHT, RIGHT, RIGHT, "both_right"),
        (NO_CALL, RIGHT, NO_CALL, "quantized_differs"),
        (NO_CALL, NO_CALL, predicted({"name": "g", "arguments": {}}, exact=False), "quantized_differs"),
        (IN_TEXT, IN_TEXT, IN_TEXT, "text"),
    ],
)
def test_a_turn_is_of_the_kind_that_its_answers_make_it(
    base: Prediction, tuned: Prediction, quantized: Prediction | None, kind: str
) -> None:
    answers = {"base": base, "tuned": tuned} | ({"quantized": quantized} if quantized else {})
    assert kind_of(answers) == kind


def all_predictions() -> dict[str, dict[tuple[str, int], Prediction]]:
    return {
        name: {(found.chat_id, found.turn): found for found in predictions(name, CHATS)}
        for name in ("base", "tuned", "quantized")
    }


def test_the_choice_is_a_mix_with_the_count_of_each_kind() -> None:
    groups = choose({chat.id: chat for chat in CHATS}, all_predictions())
    assert [group.title for group in groups] == list(KINDS.values())
    assert sum(len(group.examples) for group in groups) == 12
    assert [group.num_turns for group in groups] == [15, 6, 2, 1, 24]


def test_conversations_are_shown_once_before_any_is_shown_twice() -> None:
    groups = choose({chat.id: chat for chat in CHATS}, all_predictions())
    in_text = groups[-1].examples
    assert len({example.chat_id for example in in_text}) == len(in_text)


def test_an_example_shows_what_was_asked_last_and_keeps_the_rest_apart() -> None:
    chats = {chat.id: chat for chat in CHATS}
    found = all_predictions()
    key = ("chat05", 6)
    groups = choose(chats, {name: {key: answers[key]} for name, answers in found.items()})
    example = groups[0].examples[0]
    assert [said.who for said in example.earlier] == ["system", "user", "assistant", "tool", "assistant"]
    assert [said.text for said in example.asked] == ["Reserve 6 of basket for me, please."]
    assert example.expected.calls == ['reserve_part(part="basket", quantity=6)']
    assert [said.verdict for said in example.answers] == ["wrong: no call", "right", "wrong: another tool"]


def test_no_turns_give_no_examples() -> None:
    assert choose({}, {"base": {}, "tuned": {}}) == []


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (RIGHT, ("right", "right")),
        (NO_CALL, ("wrong", "wrong: no call")),
        (predicted(CALL, CALL, exact=False), ("wrong", "wrong: 2 calls for 1")),
        (predicted({"name": "g", "arguments": {}}, exact=False), ("wrong", "wrong: another tool")),
        (predicted({"name": "f", "arguments": {}}, exact=False), ("wrong", "wrong: other arguments")),
        (IN_TEXT, ("", "no call, as logged")),
        (predicted(CALL, exact=None, expected=0), ("wrong", "wrong: a call, none was logged")),
    ],
)
def test_a_verdict_says_what_is_wrong(prediction: Prediction, said: tuple[str, str]) -> None:
    assert verdict(prediction) == said


def test_a_long_answer_is_cut_and_says_by_how_much() -> None:
    assert answer("base", predicted(exact=False, text="x" * (MAX_SHOWN + 7))).text.endswith("x … and 7 characters more")


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ({"name": "f", "arguments": {"b": "é", "a": [1]}}, 'f(a=[1], b="é")'),
        ({"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}, "f(a=1)"),
        ({"name": "f", "arguments": '{"a": '}, 'f({"a": )'),
        ({"name": "f", "arguments": [1]}, "f([1])"),
        ({"name": 3, "arguments": None}, "3(null)"),
    ],
)
def test_a_call_reads_like_code_whatever_the_model_made_of_it(call: dict[str, Any], shown: str) -> None:
    assert show_call(call) == shown


def test_tools_are_named_in_either_form() -> None:
    assert tool_names([{"type": "function", "function": {"name": "f"}}, {"name": "g"}, {"type": "web"}]) == [
        "f", "g", "(no name)",
    ]  # fmt: skip
