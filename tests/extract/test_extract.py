from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import extract
from lab.config import Settings
from lab.errors import LabError
from lab.extract.sessions import Unusable, read_call
from lab.records import Observation
from lab.store import count_lines, numbered_lines, read_jsonl
from tests import world

HI = [{"role": "user", "content": "hi"}]
OK = {"content": "ok"}


def line(request: Any = None, response: Any = OK, **extra: Any) -> str:
    return json.dumps({"request": {"messages": HI} if request is None else request, "response": response, **extra})


def read(text: str) -> Observation:
    return read_call(text, session_id="s", line=1)


def called(arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}


BROKEN = [
    ("{", "unparseable_input", "not JSON: .* at character 1"),
    ("[1]", "unparseable_input", "not a JSON object"),
    ("[" * 100_000, "unparseable_input", "nested too deeply"),
    ('{"n": ' + "1" * 5000 + "}", "unparseable_input", "not JSON"),
    ('{"n": NaN}', "unparseable_input", "NaN is no JSON number"),
    ('{"n": "\udcff"}', "unparseable_input", "not UTF-8"),
    (line({"messages": [{"role": "user", "content": "\ud83d"}]}), "unparseable_input", "not UTF-8"),
    (line({"messages": HI, "tools": [{"name": "\ud83d"}]}), "unparseable_input", "not UTF-8"),
    (line("hi"), "unparseable_input", "no object under 'request'"),
    (line(response=None), "empty_output", "no object under 'response'"),
    (line(response={}), "empty_output", "neither content nor tool calls"),
    (line(response={"content": "", "tool_calls": []}), "empty_output", "neither content nor tool calls"),
    (line(response={"role": "user", "content": "x"}), "unparseable_input", "the response has the role 'user'"),
    (line(response={"tool_calls": 5}), "unparseable_input", "tool_calls is not a list"),
    (line(response={"tool_calls": ["f"]}), "unparseable_input", "no name or arguments"),
    (line(response={"tool_calls": [{"function": {"name": "f"}}]}), "unparseable_input", "no name or arguments"),
    (line(response=called("{broken")), "invalid_tool_arguments", "not JSON"),
    (line(response=called("[1]")), "invalid_tool_arguments", "not a JSON object"),
    (line(response=called([1])), "invalid_tool_arguments", "not a JSON object"),
    (line(response={"content": ["part"]}), "unparseable_input", "content: "),
    (line({}), "empty_input", "messages is empty"),
    (line({"messages": []}), "empty_input", "messages is empty"),
    (line({"messages": "hi"}), "empty_input", "messages is empty"),
    (line({"messages": ["hi"]}), "unparseable_input", "a message is not an object"),
    (line({"messages": [{"role": "robot", "content": "x"}]}), "unparseable_input", "role: "),
    (line({"messages": [{"role": "user"}]}), "unparseable_input", "a user message needs content"),
    (line({"messages": [{"role": "tool", "content": "x"}]}), "unparseable_input", "tool_call_id"),
    (line({"messages": HI, "tools": {"a": 1}}), "unparseable_input", "tools is not a list of objects"),
    (line({"messages": HI, "tools": ["a"]}), "unparseable_input", "tools is not a list of objects"),
    (line({"messages": HI, "system": ["a"]}), "unparseable_input", "content: "),
]


@pytest.mark.parametrize(("text", "reason", "detail"), BROKEN)
def test_a_line_that_cannot_be_used_says_why(text: str, reason: str, detail: str) -> None:
    with pytest.raises(Unusable, match=detail) as caught:
        read(text)
    assert caught.value.reason == reason


def test_a_call_keeps_what_the_agent_logged() -> None:
    request = {"system": "Be kind.", "tools": [world.ORDER], "messages": HI, "model": "m-1"}
    call = read(line(request, {"role": "assistant", "content": "ok"}, id="x7", timestamp="2026-01-01T00:00:00Z"))
    assert [message.to_openai() for message in call.input] == [{"role": "system", "content": "Be kind."}, *HI]
    assert call.output.to_openai() == {"role": "assistant", "content": "ok"}
    assert (call.id, call.model, call.start_time, call.session_id) == ("x7", "m-1", "2026-01-01T00:00:00Z", "s")
    assert call.tools == [world.ORDER]


def test_a_system_message_in_the_history_is_not_doubled() -> None:
    request = {"system": "A", "messages": [{"role": "system", "content": "B"}, *HI]}
    assert [message.content for message in read(line(request)).input] == ["B", "hi"]


def test_the_developer_role_is_the_system_role() -> None:
    request = {"messages": [{"role": "developer", "content": "B"}, *HI]}
    assert [message.role for message in read(line(request)).input] == ["system", "user"]


def test_ids_and_times_that_were_logged_as_numbers_become_text_and_missing_ones_are_made() -> None:
    call = read(line(id=7, timestamp=1700000000, model="m"))
    assert (call.id, call.start_time, call.model) == ("7", "1700000000", "m")
    first, second = read(line(id=None)), read_call(line(), session_id="s", line=2)
    assert len(first.id) == len(second.id) == 16
    assert first.id != second.id
    assert first.id == read(line()).id


@pytest.mark.parametrize("arguments", ['{"a": "é"}', {"a": "é"}])
def test_arguments_logged_as_an_object_become_json_text(arguments: Any) -> None:
    output = read(line(response=called(arguments))).output
    assert output.tool_calls is not None
    assert output.tool_calls[0].function.arguments == '{"a": "é"}'


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_calls_that_stand_in_the_content_are_taken_out_of_it(as_text: bool, wrapped: bool) -> None:
    bare = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "{}"}]
    logged = [{"function": call} for call in bare] if wrapped else bare
    output = read(line(response={"content": f" {json.dumps(logged)}" if as_text else logged})).output
    assert output.content is None
    assert [(call.function.name, call.function.arguments) for call in output.tool_calls or []] == [
        ("f", '{"a": 1}'),
        ("g", "{}"),
    ]


@pytest.mark.parametrize("content", ["[1, 2]", "[]", "[broken", '[{"name": "f"}]', '{"name": "f", "arguments": {}}'])
def test_an_answer_that_only_looks_like_a_list_stays_text(content: str) -> None:
    output = read(line(response={"content": content})).output
    assert output.content == content
    assert output.tool_calls is None


def test_a_user_who_writes_a_list_of_calls_calls_nothing() -> None:
    content = '[{"name": "f", "arguments": {}}]'
    call = read(line({"messages": [{"role": "user", "content": content}]}))
    assert call.input[0].content == content


def test_calls_without_an_id_get_ids_of_their_own() -> None:
    bare = {"function": {"name": "f", "arguments": "{}"}}
    output = read(line(response={"tool_calls": [bare, bare]})).output
    ids = [call.id for call in output.tool_calls or []]
    assert len(set(ids)) == 2
    assert all(call_id.startswith("call_") for call_id in ids)


def test_no_tools_logged_is_not_the_same_as_an_empty_list() -> None:
    assert read(line({"messages": HI, "tools": None})).tools is None
    assert read(line({"messages": HI})).tools is None
    assert read(line({"messages": HI, "tools": []})).tools == []


# --- the stage


def test_every_line_becomes_an_observation_or_a_reject(volume: Path, make_settings: Callable[..., Settings]) -> None:
    broken = volume / "samples" / "sessions" / "agent-session-999.jsonl"
    broken.write_bytes(world.session_lines(1)[0].encode() + b'\n\n{"bytes": "\xff"}\n')
    outcome = extract.run(make_settings())
    logs = sorted((volume / "samples" / "sessions").glob("*.jsonl"))
    num_lines = sum(sum(1 for _ in numbered_lines(path)) for path in logs)
    raw = volume / "raw" / "sessions"
    assert outcome.num_in == num_lines == world.NUM_SESSIONS * 4 + len(world.BROKEN_LINES) + 2
    assert count_lines(raw / "observations.jsonl") + count_lines(raw / "rejects.jsonl") == num_lines
    assert outcome.reasons == {"empty_output": 1, "unparseable_input": 3}
    rejects = [json.loads(text) for _, text in numbered_lines(raw / "rejects.jsonl")]
    assert {(Path(reject["file"]).name, reject["line"]) for reject in rejects} == {
        ("agent-session-003.jsonl", 5),
        ("agent-session-003.jsonl", 6),
        ("agent-session-003.jsonl", 7),
        ("agent-session-999.jsonl", 3),
    }
    assert extract.run(make_settings()).up_to_date
    assert not extract.run(make_settings(force=True)).up_to_date


def test_a_file_is_a_session(volume: Path, make_settings: Callable[..., Settings]) -> None:
    extract.run(make_settings())
    calls = list(read_jsonl(volume / "raw" / "sessions" / "observations.jsonl", Observation))
    assert {call.session_id for call in calls[:4]} == {"samples/sessions/agent-session-000"}
    assert len({call.session_id for call in calls}) == world.NUM_SESSIONS
    assert len({call.id for call in calls}) == len(calls)


def test_evaluation_files_choose_the_side_and_win_over_training_files(
    volume: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(data={"eval_files": ["samples/sessions/*00[12].jsonl"]})
    extract.run(settings)
    calls = list(read_jsonl(volume / "raw" / "sessions" / "observations.jsonl", Observation))
    held_out = {call.session_id for call in calls if call.metadata["split"] == "eval"}
    assert held_out == {"samples/sessions/agent-session-001", "samples/sessions/agent-session-002"}
    assert len(calls) == world.NUM_SESSIONS * 4
    extract.run(make_settings())
    calls = list(read_jsonl(volume / "raw" / "sessions" / "observations.jsonl", Observation))
    assert not any("split" in call.metadata for call in calls)


def test_a_bare_pattern_falls_back_to_the_samples_and_says_so(volume: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        files = extract.find_files(volume, ["agent-session-*.jsonl"])
    assert len(files) == world.NUM_SESSIONS
    assert "taking the sample sessions" in caplog.text
    caplog.clear()
    world.write_lines(volume / "agent-session-mine.jsonl", world.session_lines(1))
    assert extract.find_files(volume, ["agent-session-*.jsonl"]) == [volume / "agent-session-mine.jsonl"]
    assert caplog.text == ""


def test_a_pattern_may_be_absolute_and_files_are_found_once(volume: Path, tmp_path: Path) -> None:
    mine = world.write_lines(tmp_path / "elsewhere" / "a.jsonl", world.session_lines(1))
    (tmp_path / "elsewhere" / "folder.jsonl").mkdir()
    assert extract.find_files(volume, [str(mine.parent / "*.jsonl"), str(mine)]) == [mine]


@pytest.mark.parametrize("pattern", ["nothing-*.jsonl", "samples/nothing-*.jsonl"])
def test_a_pattern_without_a_match_is_an_error_that_names_the_variable(volume: Path, pattern: str) -> None:
    with pytest.raises(LabError, match=r"no file matches '.*nothing.*; set LLM_DATA__TRAIN_FILES"):
        extract.find_files(volume, [pattern])


def test_reasoning_is_kept_apart_from_the_answer() -> None:
    output = read(line(response={"content": "4", "reasoning_content": "two and two"})).output
    assert (output.content, output.reasoning_content) == ("4", "two and two")
