"""The one client of an OpenAI-compatible endpoint: Ollama, the embedded llama.cpp server, or a hosted model.

Reads and writes no file. Every stage that asks a served model asks through `Endpoint`, so that time limits, retries
and error messages are the same everywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.errors import LabError

if TYPE_CHECKING:
    from openai import OpenAI

MEND = "is it running? `make ollama-serve` starts it"
SECONDS_BETWEEN_TRIES = 0.2


class RefusedError(LabError):
    """The server answers, but not to this request: `status` is its HTTP status."""

    def __init__(self, what: str, *, where: str, status: int) -> None:
        super().__init__(what, where=where)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """One answer of the model."""

    content: str
    calls: list[dict[str, Any]]
    """Each {name, arguments}; arguments that are not JSON stay the text that the model wrote."""
    tool_calls: list[dict[str, Any]]
    """The same calls as OpenAI's message has them, to be sent back in the history."""
    finish_reason: str | None


@dataclass(frozen=True)
class Endpoint:
    """A model behind `url` (which ends in /v1)."""

    url: str
    model: str
    api_key: str | None = None
    timeout: float = 300.0
    """Seconds for one answer."""
    max_retries: int = 2

    @contextmanager
    def _client(self, timeout: float, max_retries: int) -> Iterator[OpenAI]:
        """One client a request: building it costs milliseconds, threads may ask at once, its connection is closed."""
        from openai import OpenAI

        key = self.api_key or "none"
        with OpenAI(base_url=self.url, api_key=key, timeout=timeout, max_retries=max_retries) as client:
            yield client

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return when the server lists its models; raises LabError after `timeout` seconds."""
        import openai

        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._client(timeout=5.0, max_retries=0) as client:
                    client.models.list()
                return
            except (openai.APIConnectionError, openai.InternalServerError) as error:
                if time.monotonic() > deadline:
                    raise LabError(f"no server is ready: {error}", where=self.url, mend=MEND) from None
            except openai.APIStatusError as error:
                raise self._refused(error) from None
            time.sleep(SECONDS_BETWEEN_TRIES)

    def chat(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        *,
        max_tokens: int,
        temperature: float,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Ask for the next message. With `on_text` the answer is streamed and its text handed over as it comes.

        Raises LabError where nobody answers, RefusedError where the server refuses the request.
        """
        request: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            # Ollama's /v1 samples at temperature 1.0 unless told otherwise, whatever the model's parameters say.
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if tools:
            request["tools"] = list(tools)
        with self._readable_errors(), self._client(self.timeout, self.max_retries) as client:
            return _streamed(client, request, on_text) if on_text else _whole(client, request)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.APITimeoutError:
            raise LabError(f"no answer within {self.timeout:g} s", where=self.url, mend=MEND) from None
        except openai.APIConnectionError as error:
            raise LabError(f"cannot be reached: {error.__cause__ or error}", where=self.url, mend=MEND) from None
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APIError as error:  # an error inside a stream that began with HTTP 200
            raise RefusedError(error.message, where=self.url, status=200) from None

    def _refused(self, error: Any) -> RefusedError:
        body = error.body if isinstance(error.body, dict) else {}
        return RefusedError(
            f"HTTP {error.status_code}: {body.get('message') or error.message}",
            where=self.url,
            status=error.status_code,
        )


def _whole(client: OpenAI, request: dict[str, Any]) -> Answer:
    choice = client.chat.completions.create(**request).choices[0]
    calls = [call.model_dump(exclude_none=True) for call in choice.message.tool_calls or []]
    return _answer(choice.message.content or "", calls, choice.finish_reason)


def _streamed(client: OpenAI, request: dict[str, Any], on_text: Callable[[str], None]) -> Answer:
    content, finish_reason = "", None
    calls: dict[int, dict[str, Any]] = {}
    with client.chat.completions.create(**request, stream=True) as chunks:
        for chunk in chunks:
            if not chunk.choices:
                continue  # the last chunk may carry usage alone
            delta = chunk.choices[0].delta
            finish_reason = chunk.choices[0].finish_reason or finish_reason
            if delta.content:
                content += delta.content
                on_text(delta.content)
            for part in delta.tool_calls or []:
                _append_part(calls, part.model_dump(exclude_none=True))
    return _answer(content, [calls[index] for index in sorted(calls)], finish_reason)


def _append_part(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    """Add a streamed piece of a tool call: id and name come first, the arguments in pieces."""
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(part["index"], empty)
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    call["function"]["name"] += function.get("name", "")
    call["function"]["arguments"] += function.get("arguments", "")


def _answer(content: str, tool_calls: list[dict[str, Any]], finish_reason: str | None) -> Answer:
    calls = [
        {"name": call["function"]["name"], "arguments": _parsed(call["function"]["arguments"])} for call in tool_calls
    ]
    return Answer(content, calls, tool_calls, finish_reason)


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except json.JSONDecodeError:
        return arguments
