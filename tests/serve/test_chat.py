"""The conversation in the terminal, against a scripted endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.config import Settings
from lab.endpoint import Endpoint, RefusedError
from lab.errors import LabError, UsageError
from lab.serve import chat
from lab.store import write_json
from tests.loopback import MODELS, Reply, Request, Server, as_events, as_json, chunk, loopback
from tests.tiny_run import TOOL, settings_of, write_inputs

FUNCTION = {"name": "order_status", "arguments": '{"order_id": "A-1"}'}
CALL = as_events(
    [
        chunk({"tool_calls": [{"index": 0, "id": "call00001", "type": "function", "function": FUNCTION}]}),
        chunk({}, "tool_calls"),
    ]
)
TEXT = as_events([chunk({"content": "It is shipped."}), chunk({}, "stop")])
REFUSAL = as_json({"error": {"message": "exceeds the context"}}, 400)
SILENCE = as_events([chunk({}, "stop")])


class Script:
    """Answers chat requests in order."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, request: Request) -> Reply:
        return as_json(MODELS) if request.path == "/v1/models" else self.replies.pop(0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(script: Script) -> Iterator[Server]:
    with loopback(script) as running:
        yield running


def chat_settings(data_dir: Path, server: Server, **options: Any) -> Settings:
    write_inputs(data_dir)
    write_json(data_dir / "runs" / "demo" / "serving.json", {"url": f"{server.url}/v1", "model": "m"})
    return settings_of(data_dir, chat={"tools": [], "max_tokens": 8, **options})


def asked(server: Server) -> list[Any]:
    return [request.json["messages"] for request in server.requests if request.method == "POST"]


def test_one_message_is_answered_and_nothing_is_written(
    tmp_path: Path, server: Server, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.replies = [CALL]
    settings = chat_settings(tmp_path, server, message="Where is A-1?", system="Be brief.")
    before = sorted(tmp_path.rglob("*"))
    chat.run(settings)
    assert capsys.readouterr().out == '-> order_status({"order_id": "A-1"})\n'
    assert sorted(tmp_path.rglob("*")) == before
    request = server.requests[-1].json
    assert request["tools"] == [TOOL]
    assert [message["role"] for message in request["messages"]] == ["system", "user"]


def test_calls_are_answered_by_hand_and_the_history_grows(tmp_path: Path, server: Server, script: Script) -> None:
    script.replies = [CALL, TEXT, TEXT]
    typed = ["Where is A-1?", "shipped", "", "Thanks", "/quit"]
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return typed.pop(0)

    conversation = chat.Conversation(chat_settings(tmp_path, server), Endpoint(f"{server.url}/v1", "m"))
    chat.converse(conversation, ask)
    assert prompts == ["you> ", "result of order_status> ", "you> ", "you> ", "you> "]
    roles = [message["role"] for message in asked(server)[-1]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert asked(server)[1][2]["tool_call_id"] == "call00001"


def test_a_refusal_does_not_end_the_conversation(
    tmp_path: Path, server: Server, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.replies = [REFUSAL, SILENCE, TEXT]
    typed = iter(["long", "silent", "short"])

    def ask(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    chat.converse(chat.Conversation(chat_settings(tmp_path, server), Endpoint(f"{server.url}/v1", "m")), ask)
    said = capsys.readouterr()
    assert "exceeds the context" in said.err
    assert "It is shipped." in said.out
    assert [message["content"] for message in asked(server)[-1]] == ["silent", "short"]


def test_a_refusal_of_the_one_message_is_an_error(tmp_path: Path, server: Server, script: Script) -> None:
    script.replies = [REFUSAL]
    with pytest.raises(RefusedError, match="exceeds the context"):
        chat.run(chat_settings(tmp_path, server, message="long"))


def test_the_conversation_opens_with_where_it_talks_to(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    chat.run(chat_settings(tmp_path, server))
    assert f"m at {server.url}/v1, 1 tools." in capsys.readouterr().out


def test_a_tool_that_the_catalogue_does_not_hold_is_named(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UsageError, match=r"LLM_CHAT__TOOLS: no tool 'fly' in .*it holds order_status"):
        chat.offered_tools(chat_settings(tmp_path, server, tools=["fly"]))


def test_no_catalogue_is_no_tools(tmp_path: Path) -> None:
    assert chat.offered_tools(settings_of(tmp_path, chat={"tools": []})) == []


def test_nothing_served_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`make ollama-serve`"):
        chat.run(settings_of(tmp_path))


@pytest.mark.torch
@pytest.mark.llama_cpp
def test_a_template_without_tools_gets_them_as_text_as_in_training(
    quantized_data_dir: Path, tmp_path: Path, server: Server, script: Script
) -> None:
    import shutil

    settings = chat_settings(tmp_path, server)
    shutil.copytree(quantized_data_dir / "runs" / "demo" / "merged", settings.run_dir / "merged")
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    (settings.run_dir / "merged" / "chat_template.jinja").write_text(template)
    script.replies = [TEXT]
    chat.Conversation(settings, Endpoint(f"{server.url}/v1", "m")).say("Where is A-1?")
    request = server.requests[-1].json
    assert "tools" not in request
    assert request["messages"][0]["role"] == "system"
    assert "order_status" in request["messages"][0]["content"]
