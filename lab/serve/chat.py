"""Talks to the served model from the terminal, with the tools of the catalogue.

Reads the run's `serving.json` and the tool catalogue; writes nothing. Calls are shown and answered by hand: what the
model says is what an application behind the same endpoint would get.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from lab import store
from lab.config import Settings
from lab.endpoint import Answer, Endpoint, RefusedError
from lab.errors import UsageError
from lab.records import Chat, Message, Origin
from lab.tokens import Renderer, load_renderer

PROMPT = "you> "
HELP = "Enter sends, /quit leaves."

Ask = Callable[[str], str]


def run(settings: Settings) -> None:
    """`lab chat`: one message, or a conversation until /quit or the end of the input."""
    serving = store.read_json(store.need(settings.run_dir / "serving.json", "ollama-serve"))
    endpoint = Endpoint(serving["url"], serving["model"])
    endpoint.wait_until_ready(timeout=5.0)
    conversation = Conversation(settings, endpoint)
    if settings.chat.message is not None:
        conversation.say(settings.chat.message)
        return
    print(f"{serving['model']} at {serving['url']}, {len(conversation.tools)} tools. {HELP}")
    converse(conversation, input)


def converse(conversation: Conversation, ask: Ask) -> None:
    """Read and answer until /quit, the end of the input or Ctrl-C."""
    while True:
        try:
            text = ask(PROMPT).strip()
            if text == "/quit":
                return
            if text:
                answer = conversation.say(text)
                while answer is not None and answer.tool_calls:
                    answer = conversation.give_results(answer, ask)
        except (EOFError, KeyboardInterrupt):
            print()
            return


class Conversation:
    """The history, and how it is sent: as training rendered it."""

    def __init__(self, settings: Settings, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.tools = offered_tools(settings)
        self.renderer = _renderer(settings)
        system = settings.chat.system
        self.messages = [Message(role="system", content=system)] if system else []

    def say(self, text: str) -> Answer | None:
        """Send a user's message and show the answer; None where the server refused it."""
        return self._send(Message(role="user", content=text))

    def give_results(self, answer: Answer, ask: Ask) -> Answer | None:
        """Ask the person for what each tool returned and send it."""
        results = [
            Message(role="tool", content=ask(f"result of {call['function']['name']}> "), tool_call_id=call["id"])
            for call in answer.tool_calls
        ]
        return self._send(*results)

    def _send(self, *added: Message) -> Answer | None:
        messages = [*self.messages, *added]
        payload, tools = self._as_served(messages)
        chat = self.settings.chat
        try:
            answer = self.endpoint.chat(
                payload,
                tools,
                max_tokens=chat.max_tokens,
                temperature=self.settings.serve.temperature,
                on_text=lambda text: print(text, end="", flush=True),
            )
        except RefusedError as error:
            if chat.message is not None:
                raise
            print(error, file=sys.stderr)  # such as a history that outgrew the context: the conversation goes on
            return None
        print(shown(answer), flush=True)
        self.messages = [*messages, *_as_message(answer)]
        return answer

    def _as_served(self, messages: list[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Messages and tools as a server gets them: what training wrote into the system prompt is written there too."""
        if self.renderer is None:
            return [message.to_openai() for message in messages], self.tools
        target = Message(role="assistant", content="(to come)")
        origin = Origin(source="chat", ids=[], group="chat")
        chat = Chat(id="chat", messages=[*messages, target], tools=self.tools, origin=origin)
        return self.renderer.served_messages(chat, len(messages)), self.renderer.served_tools(chat)


def offered_tools(settings: Settings) -> list[dict[str, Any]]:
    """The catalogue's tools, or those that were named; raises UsageError for a name that it does not hold."""
    path = settings.path(settings.data.tool_catalogue)
    if not path.exists() and not settings.chat.tools:
        return []
    tools = {tool["function"]["name"]: tool for tool in store.read_json(store.need(path, "samples"))}
    for name in settings.chat.tools:
        if name not in tools:
            raise UsageError(
                f"no tool {name!r} in {path}", where="LLM_CHAT__TOOLS", mend=f"it holds {', '.join(tools)}"
            )
    return [tools[name] for name in settings.chat.tools or tools]


def _renderer(settings: Settings) -> Renderer | None:
    """That of the merged model; None where the model was made elsewhere."""
    merged_dir = settings.run_dir / "merged"
    return load_renderer(settings, str(merged_dir)) if merged_dir.is_dir() else None


def shown(answer: Answer) -> str:
    """The calls of an answer, one a line; its text has been streamed."""
    calls = [f"-> {call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in answer.calls]
    return ("\n" if answer.content and calls else "") + "\n".join(calls)


def _as_message(answer: Answer) -> list[Message]:
    """The answer for the history; none where it said nothing."""
    if not (answer.content or answer.tool_calls):
        return []
    calls = [
        {"id": call["id"], "function": {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}}
        for call in answer.tool_calls
    ]
    return [
        Message.model_validate({"role": "assistant", "content": answer.content or None, "tool_calls": calls or None})
    ]
