"""Held-out turns to look at: what was asked, what was logged, what each contender answered.

Reads and writes nothing: pure functions over conversations and predictions. The choice is a mix of what was learned
and what was not, the same for the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lab.records import Chat, Prediction

NUM_EXAMPLES = 12
MAX_SHOWN = 240  # characters of an answer: an untrained model goes on until it is stopped

KINDS = {
    "learned": "The base model is wrong, the tuned one right",
    "tuned_wrong": "The tuned model is wrong",
    "quantized_differs": "The quantized model calls otherwise than the tuned one",
    "both_right": "The base and the tuned model are both right",
    "text": "The agent answered in text, without a call",
}

Predictions = Mapping[tuple[str, int], Prediction]


@dataclass(frozen=True)
class Said:
    """One message or answer as the page shows it."""

    who: str
    text: str
    calls: list[str]
    verdict: str = ""
    mark: str = ""
    """`right`, `wrong` or empty."""


@dataclass(frozen=True)
class Example:
    """One held-out turn side by side."""

    chat_id: str
    turn: int
    earlier: list[Said]
    asked: list[Said]
    tools: list[str]
    expected: Said
    answers: list[Said]


@dataclass(frozen=True)
class Group:
    """Examples of one kind, with the number of all held-out turns of that kind."""

    title: str
    num_turns: int
    examples: list[Example]


def choose(chats: Mapping[str, Chat], predictions: Mapping[str, Predictions], limit: int = NUM_EXAMPLES) -> list[Group]:
    """About `limit` turns, drawn in turn from each kind; the first conversations come first."""
    by_kind: dict[str, list[tuple[str, int]]] = {kind: [] for kind in KINDS}
    for key in predictions["tuned"]:
        by_kind[kind_of({name: answers[key] for name, answers in predictions.items()})].append(key)
    spread = {kind: _one_a_chat_first(keys) for kind, keys in by_kind.items()}
    in_turn = [key for keys in zip_longest(*spread.values()) for key in keys if key is not None]
    chosen = set(in_turn[:limit])
    return [
        Group(KINDS[kind], len(keys), [_example(chats, predictions, key) for key in keys if key in chosen])
        for kind, keys in spread.items()
        if chosen & set(keys)
    ]


def kind_of(answers: Mapping[str, Prediction]) -> str:
    """What a turn shows, by the answers of all contenders to it."""
    base, tuned, quantized = answers["base"], answers["tuned"], answers.get("quantized")
    if tuned.exact is None:
        return "text"
    if quantized and (quantized.exact != tuned.exact or _shown(quantized.calls) != _shown(tuned.calls)):
        return "quantized_differs"
    if not tuned.exact:
        return "tuned_wrong"
    return "both_right" if base.exact else "learned"


def _one_a_chat_first(keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """The first turn of every conversation before the second of any."""
    seen: dict[str, int] = {}
    ranked = []
    for key in keys:
        seen[key[0]] = seen.get(key[0], 0) + 1
        ranked.append((seen[key[0]], key))
    return [key for _, key in sorted(ranked, key=lambda pair: pair[0])]


def _example(chats: Mapping[str, Chat], predictions: Mapping[str, Predictions], key: tuple[str, int]) -> Example:
    chat, turn = chats[key[0]], key[1]
    messages = [message.to_openai() for message in chat.messages[:turn]]
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=0)
    logged = predictions["tuned"][key].expected
    return Example(
        chat.id,
        turn,
        earlier=[said(message) for message in messages[:last_user]],
        asked=[said(message) for message in messages[last_user:]],
        tools=tool_names(chat.tools),
        expected=Said("expected", logged["content"] or "", _shown(logged["calls"]), "from the log"),
        answers=[answer(name, found[key]) for name, found in predictions.items()],
    )


def said(message: Mapping[str, Any]) -> Said:
    """A message in OpenAI's form."""
    return Said(message["role"], message["content"] or "", _shown(message.get("tool_calls") or []))


def answer(contender: str, prediction: Prediction) -> Said:
    """A contender's answer with its verdict in a word and a mark. Text beside calls is their markup: left out."""
    text = "" if prediction.calls else _cut(prediction.text)
    mark, words = verdict(prediction)
    return Said(contender, text, _shown(prediction.calls), words, mark)


def verdict(prediction: Prediction) -> tuple[str, str]:
    """Right or wrong, and how."""
    if prediction.exact is None:
        return ("wrong", "wrong: a call, none was logged") if prediction.calls else ("", "no call, as logged")
    if prediction.exact:
        return "right", "right"
    expected, calls = prediction.expected["calls"], prediction.calls
    if not calls:
        return "wrong", "wrong: no call"
    if len(calls) != len(expected):
        return "wrong", f"wrong: {len(calls)} calls for {len(expected)}"
    same_tools = sorted(str(call["name"]) for call in calls) == sorted(str(call["name"]) for call in expected)
    return "wrong", "wrong: other arguments" if same_tools else "wrong: another tool"


def _cut(text: str) -> str:
    rest = len(text) - MAX_SHOWN
    return f"{text[:MAX_SHOWN]} … and {rest} characters more" if rest > 0 else text


def tool_names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of tool definitions, in OpenAI's form or bare."""
    return [str(tool.get("function", tool).get("name", "(no name)")) for tool in tools]


def _shown(calls: Iterable[Mapping[str, Any]]) -> list[str]:
    return [show_call(call) for call in calls]


def show_call(call: Mapping[str, Any]) -> str:
    """A call as `name(key="value")`, from {name, arguments} or OpenAI's form; arguments that are no object as given."""
    function = call.get("function", call)
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            return f"{function['name']}({arguments})"
    if not isinstance(arguments, dict):
        return f"{function['name']}({_json(arguments)})"
    # Sorted, since the order of arguments is no part of a call.
    shown = ", ".join(f"{key}={_json(value)}" for key, value in sorted(arguments.items()))
    return f"{function['name']}({shown})"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
