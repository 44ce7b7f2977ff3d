"""format: turns logged calls into conversations to train on.

Reads raw/*/observations.jsonl and the tool catalogue, writes interim/chats.jsonl. An agent logs the whole history with
every call, so the calls of a session fold into one conversation and no answer is learned twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat, Message, Observation, Origin, parse_arguments, stable_id
from lab.store import Outcome, Step, current, finish, need, read_json, read_jsonl, write_jsonl

Tools = list[dict[str, Any]]


def run(settings: Settings) -> Outcome:
    """Fold every session's calls into conversations."""
    started = time.time()
    observations_path = need(settings.path("raw/sessions/observations.jsonl"), "extract")
    catalogue_path = settings.path(settings.data.tool_catalogue)
    inputs = [observations_path, *([catalogue_path] if catalogue_path.exists() else [])]
    chosen = settings.data.model_dump(include={"inject_tool_catalog", "tool_catalogue"})
    step = Step("format", settings.path("interim/manifest.json"), inputs, chosen, ("format",))
    if not settings.force and (outcome := current(step)):
        return outcome
    observations = list(read_jsonl(observations_path, Observation))
    catalogue = read_catalogue(catalogue_path) if settings.data.inject_tool_catalog else []
    chats_path = settings.path("interim/chats.jsonl")
    num_out = write_jsonl(chats_path, fold_sessions(observations, catalogue))
    outcome = Outcome(
        "format", len(observations), num_out, outputs=[chats_path], note="calls folded into conversations"
    )
    return finish(step, outcome, started)


def read_catalogue(path: Path) -> Tools:
    """The tool catalogue: a JSON list of OpenAI tool definitions. An absent file is an empty catalogue."""
    if not path.exists():
        return []
    tools = read_json(path)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and "function" in tool for tool in tools):
        raise LabError("not a JSON list of OpenAI tool definitions", where=str(path))
    return tools


def fold_sessions(observations: list[Observation], catalogue: Tools) -> Iterator[Chat]:
    """Conversations of all sessions; the observations of a session stand together."""
    for group, calls in groupby(observations, key=lambda call: call.session_id or call.trace_id):
        for index, conversation in enumerate(fold(list(calls))):
            yield to_chat(group, index, conversation, catalogue)


def fold(calls: list[Observation]) -> list[list[Observation]]:
    """Calls of one session, each list a conversation: a call that goes on from another's history belongs to it."""
    conversations: list[list[Observation]] = []
    for call in calls:
        before = next((chain for chain in reversed(conversations) if _goes_on(chain[-1], call)), None)
        if before is None:
            conversations.append([call])
        else:
            before.append(call)
    return conversations


def _goes_on(earlier: Observation, later: Observation) -> bool:
    """Whether the later call's input begins with the earlier call's input and output."""
    history = [_said(message) for message in (*earlier.input, earlier.output)]
    return len(later.input) >= len(history) and [_said(message) for message in later.input[: len(history)]] == history


def _said(message: Message) -> dict[str, Any]:
    """What counts when messages are compared: not invented call ids, nor how arguments or no content are written."""
    calls = [(call.function.name, parse_arguments(call.function.arguments)) for call in message.tool_calls or []]
    return {"role": message.role, "name": message.name, "content": message.content or None, "calls": calls}


def to_chat(group: str, index: int, conversation: list[Observation], catalogue: Tools) -> Chat:
    """The last call's history and answer as one conversation; tools that no call logged come from the catalogue."""
    last = conversation[-1]
    origin = Origin(
        source=last.source,
        ids=[call.id for call in conversation],
        model=last.model,
        group=group,
        split=last.metadata.get("split"),
    )
    tools = next((call.tools for call in reversed(conversation) if call.tools is not None), catalogue)
    return Chat(id=stable_id(group, str(index)), messages=[*last.input, last.output], tools=tools, origin=origin)
