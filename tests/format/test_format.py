from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import extract
from lab import format as folding
from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat, Message, Observation
from lab.store import read_jsonl
from tests import world
from tests.world import calls, result, says, user


def call(history: list[Message], answer: Message, tools: Any = None, number: int = 0) -> Observation:
    return Observation(
        id=f"o{number}", trace_id="t", session_id="s", input=history, output=answer, tools=tools, source="sessions"
    )


def test_calls_that_repeat_the_history_fold_into_one_conversation() -> None:
    asked, first, more, second = user("a"), says("b"), user("c"), says("d")
    observations = [call([asked], first, number=1), call([asked, first, more], second, number=2)]
    [chat] = folding.fold_sessions(observations, [])
    assert chat.messages == [asked, first, more, second]
    assert chat.origin.ids == ["o1", "o2"]
    assert chat.origin.group == "s"


def test_a_retry_and_another_question_are_conversations_of_their_own() -> None:
    asked = user("a")
    observations = [
        call([asked], says("b"), number=1),
        call([asked], says("other"), number=2),
        call([user("z")], says("y"), number=3),
        call([asked, says("b"), user("c")], says("d"), number=4),
    ]
    chats = list(folding.fold_sessions(observations, []))
    assert [chat.origin.ids for chat in chats] == [["o1", "o4"], ["o2"], ["o3"]]
    assert len({chat.id for chat in chats}) == 3
    assert {chat.origin.group for chat in chats} == {"s"}


def test_invented_call_ids_and_the_spelling_of_arguments_do_not_tear_a_conversation_apart() -> None:
    answered = Message(role="assistant", content=None, tool_calls=[calls("f", 1, a=1, b="é")])
    repeated = calls("f", 2)
    repeated.function.arguments = '{"b":"\\u00e9","a":1}'
    history = [user("a"), Message(role="assistant", content="", tool_calls=[repeated]), result("ok", 2)]
    [chat] = folding.fold_sessions([call([user("a")], answered), call(history, says("done"))], [])
    assert len(chat.messages) == 4


def test_other_arguments_are_another_conversation() -> None:
    history = [user("a"), says(None, calls("f", a=2)), result("ok")]
    chats = list(folding.fold_sessions([call([user("a")], says(None, calls("f", a=1))), call(history, says("x"))], []))
    assert len(chats) == 2


def test_a_cut_history_is_another_conversation() -> None:
    first = call([user("a"), says("b"), user("c")], says("d"))
    assert len(folding.fold([first, call([user("c")], says("e"))])) == 2


@pytest.mark.parametrize(
    ("logged", "expected"), [(None, world.TOOLS), ([], []), ([world.ORDER], [world.ORDER])], ids=["null", "none", "one"]
)
def test_the_catalogue_fills_in_only_where_the_log_does_not_say(logged: Any, expected: Any) -> None:
    [chat] = folding.fold_sessions([call([user("a")], says("b"), logged)], world.TOOLS)
    assert chat.tools == expected


@pytest.mark.parametrize(("is_on", "num_tools"), [(True, 2), (False, 0)])
def test_the_catalogue_can_be_switched_off(
    volume: Path, make_settings: Callable[..., Settings], is_on: bool, num_tools: int
) -> None:
    world.write_lines(
        volume / "mine.jsonl", [world.call_line([{"role": "user", "content": "a"}], {"content": "b"}, None)]
    )
    settings = make_settings(data={"train_files": ["mine.jsonl"], "inject_tool_catalog": is_on})
    extract.run(settings)
    folding.run(settings)
    [chat] = read_jsonl(volume / "interim" / "chats.jsonl", Chat)
    assert len(chat.tools) == num_tools


def test_every_sample_session_becomes_one_conversation(volume: Path, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    extract.run(settings)
    outcome = folding.run(settings)
    chats = list(read_jsonl(volume / "interim" / "chats.jsonl", Chat))
    assert (outcome.num_in, outcome.num_out) == (world.NUM_SESSIONS * 4, world.NUM_SESSIONS)
    assert len({chat.id for chat in chats}) == len({chat.origin.group for chat in chats}) == world.NUM_SESSIONS
    assert [len(chat.target_indices) for chat in chats] == [4] * world.NUM_SESSIONS
    assert folding.run(settings).up_to_date


def test_the_side_that_the_user_chose_goes_along(volume: Path, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(data={"eval_files": ["samples/sessions/*001.jsonl"]})
    extract.run(settings)
    folding.run(settings)
    sides = [chat.origin.split for chat in read_jsonl(volume / "interim" / "chats.jsonl", Chat)]
    assert sides.count("eval") == 1
    assert sides.count("train") == world.NUM_SESSIONS - 1


def test_a_changed_catalogue_makes_the_conversations_stale(
    volume: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    extract.run(settings)
    folding.run(settings)
    (volume / "tool_catalogue.json").write_text(json.dumps([world.ORDER]))
    assert not folding.run(settings).up_to_date


@pytest.mark.parametrize("content", ['{"a": 1}', '["order_status"]', '[{"name": "order_status"}]'])
def test_a_catalogue_of_another_shape_is_an_error_with_its_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tools.json"
    path.write_text(content)
    with pytest.raises(LabError, match=r"tools\.json: not a JSON list of OpenAI tool definitions"):
        folding.read_catalogue(path)


def test_no_catalogue_is_an_empty_one(tmp_path: Path) -> None:
    assert folding.read_catalogue(tmp_path / "none.json") == []


def test_missing_observations_name_the_command_that_writes_them(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(LabError, match="`make extract` writes it"):
        folding.run(make_settings())


def test_tools_that_an_earlier_call_logged_win_over_the_catalogue() -> None:
    asked, first = user("a"), says("b")
    observations = [call([asked], first, [world.ORDER], 1), call([asked, first, user("c")], says("d"), None, 2)]
    [chat] = folding.fold_sessions(observations, world.TOOLS)
    assert chat.tools == [world.ORDER]
