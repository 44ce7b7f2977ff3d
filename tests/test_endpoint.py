"""The client of OpenAI-compatible endpoints, against a scripted server."""

from __future__ import annotations

import socket

import pytest

from lab.endpoint import Endpoint, RefusedError
from lab.errors import LabError
from tests.loopback import MODELS, Reply, Request, as_events, as_json, chunk, completion, loopback

USER = [{"role": "user", "content": "Where is A-1?"}]
CALL = {"id": "call00001", "type": "function", "function": {"name": "order_status", "arguments": '{"order_id": "A-1"}'}}
TOOLS = [{"type": "function", "function": {"name": "order_status", "parameters": {"type": "object"}}}]


def test_a_call_comes_back_parsed_and_as_the_history_needs_it() -> None:
    with loopback(lambda _: as_json(completion({"content": None, "tool_calls": [CALL]}, "tool_calls"))) as server:
        answer = Endpoint(f"{server.url}/v1", "m").chat(USER, TOOLS, max_tokens=5, temperature=0.0)
    assert answer.calls == [{"name": "order_status", "arguments": {"order_id": "A-1"}}]
    assert answer.tool_calls == [CALL]
    assert (answer.content, answer.finish_reason) == ("", "tool_calls")


def test_the_request_says_temperature_and_tools() -> None:
    with loopback(lambda _: as_json(completion({"content": "hi"}))) as server:
        Endpoint(f"{server.url}/v1", "m").chat(USER, TOOLS, max_tokens=5, temperature=0.0)
        Endpoint(f"{server.url}/v1", "m").chat(USER, max_tokens=5, temperature=0.5)
    first, second = (request.json for request in server.requests)
    assert first == {"model": "m", "messages": USER, "tools": TOOLS, "temperature": 0.0, "max_tokens": 5}
    assert second == {"model": "m", "messages": USER, "temperature": 0.5, "max_tokens": 5}
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_a_stream_hands_over_text_and_puts_calls_together() -> None:
    function = {"name": "order_status", "arguments": ""}
    chunks = [
        chunk({"role": "assistant", "content": "Let me "}),
        chunk({"content": "look."}),
        chunk({"tool_calls": [{"index": 0, "id": "call00001", "type": "function", "function": function}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"order_id": '}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"A-1"}'}}]}),
        chunk({}, "tool_calls"),
        chunk({}) | {"choices": []},
    ]
    heard: list[str] = []
    with loopback(lambda _: as_events(chunks)) as server:
        answer = Endpoint(f"{server.url}/v1", "m").chat(
            USER, TOOLS, max_tokens=5, temperature=0.0, on_text=heard.append
        )
    assert heard == ["Let me ", "look."]
    assert answer.content == "Let me look."
    assert answer.tool_calls == [CALL]
    assert answer.calls == [{"name": "order_status", "arguments": {"order_id": "A-1"}}]


def test_arguments_that_are_not_json_stay_text() -> None:
    broken = {**CALL, "function": {"name": "order_status", "arguments": "{oops"}}
    with loopback(lambda _: as_json(completion({"content": None, "tool_calls": [broken]}))) as server:
        answer = Endpoint(f"{server.url}/v1", "m").chat(USER, max_tokens=5, temperature=0.0)
    assert answer.calls == [{"name": "order_status", "arguments": "{oops"}]


def test_a_refusal_carries_the_servers_words_and_status() -> None:
    error = {"error": {"message": "the request exceeds the available context size", "type": "t", "code": 400}}
    with loopback(lambda _: as_json(error, 400)) as server, pytest.raises(RefusedError, match="context size") as caught:
        Endpoint(f"{server.url}/v1", "m").chat(USER, max_tokens=5, temperature=0.0)
    assert caught.value.status == 400


def test_an_error_inside_a_stream_is_a_refusal_too() -> None:
    with (
        loopback(lambda _: as_events([{"error": {"message": "out of memory"}}])) as server,
        pytest.raises(RefusedError, match="out of memory"),
    ):
        Endpoint(f"{server.url}/v1", "m").chat(USER, max_tokens=5, temperature=0.0, on_text=print)


def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_it() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    endpoint = Endpoint(url, "m", max_retries=0)
    with pytest.raises(LabError, match=f"{url}: cannot be reached.*make ollama-serve"):
        endpoint.chat(USER, max_tokens=5, temperature=0.0)
    with pytest.raises(LabError, match=f"{url}: no server is ready.*make ollama-serve"):
        endpoint.wait_until_ready(timeout=0.0)


def test_no_answer_in_time_is_said_with_the_time() -> None:
    import threading

    over = threading.Event()

    def slow(_: Request) -> Reply:
        over.wait(5.0)
        return Reply()

    with loopback(slow) as server:
        endpoint = Endpoint(f"{server.url}/v1", "m", timeout=0.1, max_retries=0)
        with pytest.raises(LabError, match=r"no answer within 0.1 s"):
            endpoint.chat(USER, max_tokens=5, temperature=0.0)
        over.set()


def test_waiting_ends_when_the_model_has_loaded() -> None:
    replies = [as_json({"error": {"message": "loading model"}}, 503), as_json(MODELS)]
    with loopback(lambda _: replies.pop(0)) as server:
        Endpoint(f"{server.url}/v1", "m").wait_until_ready(timeout=30.0)
    assert replies == []


def test_waiting_ends_at_once_where_the_key_is_wrong() -> None:
    with (
        loopback(lambda _: as_json({"error": {"message": "bad key"}}, 401)) as server,
        pytest.raises(RefusedError, match="bad key"),
    ):
        Endpoint(f"{server.url}/v1", "m", api_key="wrong").wait_until_ready(timeout=30.0)
