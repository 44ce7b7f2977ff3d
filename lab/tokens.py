"""From a conversation to token ids and labels: the one render-tokenize-mask function, for checking and training alike.

Reads nothing and writes nothing but a tokenizer. What the chat template cannot show (tools, tool calls) is written into
the messages as text here, so that training, evaluation and serving say the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat, Message, ToolCall, parse_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # the label that PyTorch's cross entropy leaves out

TOOL_PREAMBLE = """You can call tools. To call one, answer with a JSON object between <tool_call> and </tool_call> tags:
<tool_call>
{"name": "<tool>", "arguments": {<arguments>}}
</tool_call>
Several calls follow one another. Results come back between <tool_response> and </tool_response> tags."""


@dataclass(frozen=True)
class Tokenized:
    """A conversation as the model sees it: `labels[i]` is `input_ids[i]` where it is learned, else IGNORE_INDEX."""

    text: str
    input_ids: list[int]
    labels: list[int]

    @property
    def num_targets(self) -> int:
        return sum(label != IGNORE_INDEX for label in self.labels)


class UntrainableError(ValueError):
    """This conversation cannot be tokenized with a trustworthy mask; `reason` goes to the rejects file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


torch_is_hidden = False  # set by a process that needs tokenizers only


def _hide_torch() -> None:
    """Let Transformers load tokenizers without importing PyTorch, which costs seconds and memory."""
    logging.getLogger("transformers").setLevel(logging.ERROR)  # else it warns that PyTorch was not found
    import transformers.utils
    from transformers.utils import import_utils

    for module in (import_utils, transformers.utils):
        module.is_torch_available = lambda: False


def load_tokenizer(
    path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or Hub id; raises LabError where there is none or it has no chat template."""
    if torch_is_hidden:
        _hide_torch()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise LabError(
            f"no tokenizer can be loaded: {error}", where=path, mend="check LLM_MODEL__BASE_MODEL (and HF_TOKEN)"
        ) from None
    if not tokenizer.chat_template:
        raise LabError("the tokenizer has no chat template", where=path, mend="take the instruct version of the model")
    return tokenizer


def tokenizer_files(path: str) -> list[Path]:
    """The files that decide what a local model's tokenizer does; none for a model of the Hub."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja")
    return [file for name in names if (file := Path(path) / name).is_file()]


def load_renderer(settings: Settings, path: str | None = None) -> Renderer:
    """The renderer of the base model (or of the model folder `path`), with the injection that the settings ask for."""
    tokenizer = load_tokenizer(
        path or settings.base_model_path,
        revision=None if path else settings.model.revision,
        trust_remote_code=settings.model.trust_remote_code,
    )
    return Renderer(
        tokenizer,
        inject_preamble=settings.data.inject_tool_preamble,
        inject_catalog=settings.data.inject_tool_catalog,
    )


class Renderer:
    """Renders conversations with a tokenizer's own chat template, as training, evaluation and serving need them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, inject_preamble: bool, inject_catalog: bool) -> None:
        self.tokenizer = tokenizer
        self.inject_preamble = inject_preamble
        self.inject_catalog = inject_catalog

    # --- what the template can show, found by trying -----------------------------------------------------------------

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the template renders tool definitions and tool calls."""
        return "probe_tool" in self._probe([_PROBE_USER], [_PROBE_TOOL]) and "probe_tool" in self._probe(
            [_PROBE_USER, _probe_call(self.arguments_are_text)], []
        )

    @cached_property
    def arguments_are_text(self) -> bool:
        """Whether the template wants arguments as a JSON string: those that fail on an object do."""
        return "probe_value" not in self._probe([_PROBE_USER, _probe_call(as_text=False)], [])

    def _probe(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        try:
            return self._apply(messages, tools, add_generation_prompt=False)
        except Exception:  # noqa: BLE001  a template is foreign code: whatever it raises means "cannot show this"
            return ""

    # --- rendering ---------------------------------------------------------------------------------------------------

    def served_messages(self, chat: Chat, end: int | None = None) -> list[dict[str, Any]]:
        """The first `end` messages as an OpenAI-compatible server gets them: text is injected, arguments are text."""
        messages = chat.messages[:end]
        if not self.shows_tools:
            messages = self._as_text(messages, chat.tools)
        return [message.to_openai() for message in messages]

    def served_tools(self, chat: Chat) -> list[dict[str, Any]]:
        """The tools that a server gets: none where they stand in the system prompt already."""
        return chat.tools if self.shows_tools else []

    def render(self, chat: Chat, end: int | None = None, *, add_generation_prompt: bool = False) -> str:
        """The first `end` messages (all by default) as text, special tokens included."""
        messages = self.served_messages(chat, end)
        for message in messages:
            for call in message.get("tool_calls") or []:
                if not self.arguments_are_text:
                    call["function"]["arguments"] = parse_arguments(call["function"]["arguments"])
        return self._apply(messages, self.served_tools(chat), add_generation_prompt=add_generation_prompt)

    def _apply(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, add_generation_prompt: bool
    ) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text. The template writes BOS itself, so none is added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, chat: Chat, turn: int) -> list[int]:
        """Token ids of everything before the assistant message at position `turn`, its header included."""
        return self.encode(self.render(chat, turn, add_generation_prompt=True))

    def decode_answer(self, ids: list[int]) -> str:
        """Generated ids as text up to the end of the turn. Tags that are not special, as of tool calls, stay."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip()

    def tokenize(self, chat: Chat) -> Tokenized:
        """Token ids and labels of a whole conversation: every assistant message is learned, with its end-of-turn token.

        A message's span is what rendering up to and including it adds to rendering everything before it with the
        assistant header, so no marker of the template has to be known. Raises UntrainableError where the template
        rewrites history, or where a token crosses the border of a span.
        """
        from jinja2 import TemplateError

        try:
            text = self.render(chat)
            spans = [self._span(chat, turn, text) for turn in chat.target_indices]
        except TemplateError as error:  # e.g. "This model only supports single tool-calls at once!"
            raise UntrainableError("template_refuses", str(error)) from None
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        labels = _label(encoded["input_ids"], encoded["offset_mapping"], spans)
        return Tokenized(text, list(encoded["input_ids"]), labels)

    def _span(self, chat: Chat, turn: int, text: str) -> tuple[int, int]:
        """Where in `text` the assistant message at `turn` stands: characters [start, end)."""
        before = self.render(chat, turn, add_generation_prompt=True)
        through = self.render(chat, turn + 1)
        if not (text.startswith(through) and through.startswith(before)):
            raise UntrainableError("template_rewrites_history", f"message {turn} renders otherwise in the whole chat")
        return len(before), len(through.rstrip("\n"))  # the line feed after the end-of-turn token is the next turn's

    def _as_text(self, messages: Sequence[Message], tools: list[dict[str, Any]]) -> list[Message]:
        """Tools, calls and results as plain text, for a template that shows none of them."""
        plain = [_without_tools(message) for message in messages]
        addition = "\n\n".join(self._system_parts(tools))
        if not addition:
            return plain
        if plain and plain[0].role == "system":
            return [Message(role="system", content=f"{plain[0].content}\n\n{addition}"), *plain[1:]]
        return [Message(role="system", content=addition), *plain]

    def _system_parts(self, tools: list[dict[str, Any]]) -> list[str]:
        if not tools:
            return []
        catalog = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
        preamble = [TOOL_PREAMBLE] if self.inject_preamble else []
        return preamble + ([f"Tools:\n{catalog}"] if self.inject_catalog else [])


def _label(ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[int]:
    """Labels of tokens by their character offsets; a token that is half in a span has no right label."""
    labels = [IGNORE_INDEX] * len(ids)
    position = 0
    for start, end in spans:
        while position < len(ids) and offsets[position][1] <= start:
            position += 1
        while position < len(ids) and offsets[position][0] < end:
            if offsets[position][0] < start or offsets[position][1] > end:
                raise UntrainableError("token_crosses_turn", f"a token spans the border of a turn at character {start}")
            labels[position] = ids[position]
            position += 1
    return labels


def _without_tools(message: Message) -> Message:
    if message.role == "tool":
        return Message(role="user", content=f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.tool_calls:
        return message
    calls = [_call_as_text(call) for call in message.tool_calls]
    return Message(role="assistant", content="\n".join([message.content, *calls] if message.content else calls))


def _call_as_text(call: ToolCall) -> str:
    name, arguments = json.dumps(call.function.name), call.function.arguments
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def parse_calls(text: str) -> list[dict[str, Any]]:
    """Tool calls in generated text: every JSON object with `name` and `arguments` (or `parameters`), in order."""
    decoder = json.JSONDecoder()
    calls: list[dict[str, Any]] = []
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested beyond reason
            value, end = None, position + 1
        if isinstance(value, dict) and "name" in value and ("arguments" in value or "parameters" in value):
            calls.append({"name": value["name"], "arguments": value.get("arguments", value.get("parameters"))})
        position = text.find("{", end)
    return calls


_PROBE_USER = {"role": "user", "content": "probe"}
_PROBE_TOOL = {
    "type": "function",
    "function": {"name": "probe_tool", "description": "", "parameters": {"type": "object", "properties": {}}},
}


def _probe_call(as_text: bool) -> dict[str, Any]:
    arguments: Any = '{"key": "probe_value"}' if as_text else {"key": "probe_value"}
    call = {"id": "call00000", "type": "function", "function": {"name": "probe_tool", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}
