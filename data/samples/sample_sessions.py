"""Reads the tools' table.
Writes nothing: builds the agent's sessions, each a list of logged LLM calls that repeat the whole history.
Why: they are the supervised data of the demo, in the form in which real agents log themselves.
"""

import json
from dataclasses import dataclass, field
from random import Random

from sample_tools import PLAIN_ANSWERS, REFUSALS, SYSTEM_PROMPTS, TOOLS, Tool
from sample_values import Value, compact, pick, tool_definition

Message = dict[str, object]
Record = dict[str, object]
Arguments = dict[str, Value]

CATALOGUE = [tool_definition(tool.name, tool.description, tool.parameters) for tool in TOOLS]


@dataclass
class Session:
    """One session while it is written; `calls` grows by one record an assistant turn."""

    rng: Random
    system: str | None
    tools: list[dict[str, object]] | None
    messages: list[Message] = field(default_factory=list)
    calls: list[Record] = field(default_factory=list)

    def say(self, content: str) -> None:
        self.messages.append({"role": "user", "content": content})

    def respond(self, response: Message) -> None:
        request = {"system": self.system, "tools": self.tools, "messages": list(self.messages)}
        self.calls.append({"request": request, "response": response})
        self.messages.append(response)

    def answer(self, content: str) -> None:
        self.respond({"role": "assistant", "content": content})

    def call(self, uses: list[tuple[Tool, Arguments]]) -> None:
        """One assistant turn with a call for each use, the tools' results, and the answer that tells them."""
        ids = [f"call_{self.rng.getrandbits(32):08x}" for _ in uses]
        calls = [tool_call(call_id, tool.name, arguments) for call_id, (tool, arguments) in zip(ids, uses, strict=True)]
        self.respond({"role": "assistant", "content": None, "tool_calls": calls})
        sentences = []
        for call_id, (tool, arguments) in zip(ids, uses, strict=True):
            result = {key: pick(kind, self.rng) if kind != "yes" else "yes" for key, kind in tool.result.items()}
            self.messages.append({"role": "tool", "tool_call_id": call_id, "content": json.dumps(result)})
            sentences.append(self.rng.choice(tool.answers).format(**{**result, **arguments}))
        self.answer(" ".join(sentences))


def tool_call(call_id: str, name: str, arguments: Arguments) -> dict[str, object]:
    """A call in OpenAI's form: the arguments are a JSON string."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def draw_arguments(tool: Tool, rng: Random) -> Arguments:
    return {name: pick(kind, rng) for name, kind in tool.parameters.items()}


def ask_one(session: Session, tool: Tool) -> None:
    """A request with all it takes: call, result, answer."""
    arguments = draw_arguments(tool, session.rng)
    session.say(session.rng.choice(tool.requests).format(**arguments))
    session.call([(tool, arguments)])


def ask_pair(session: Session, tool: Tool) -> None:
    """A request that takes two calls of one tool in one answer."""
    rng = session.rng
    first = draw_arguments(tool, rng)
    assert tool.pair is not None
    parameter, request = tool.pair
    second = first
    while second == first:
        second = {**first, parameter: pick(tool.parameters[parameter], rng)}
    session.say(request.format(first=first[parameter], second=second[parameter], **first))
    session.call([(tool, first), (tool, second)])


def ask_unclear(session: Session, tool: Tool) -> None:
    """A request that lacks an argument: the agent asks, the user tells, the agent calls."""
    arguments = draw_arguments(tool, session.rng)
    parameter, (request, question) = session.rng.choice(sorted(tool.missing.items()))
    session.say(request.format(**arguments))
    session.answer(question)
    session.say(f"{arguments[parameter]}.")
    session.call([(tool, arguments)])


def ask_plain(session: Session) -> None:
    request, answer = session.rng.choice(PLAIN_ANSWERS)
    session.say(request)
    session.answer(answer)


def ask_refused(session: Session) -> None:
    request, answer = session.rng.choice(REFUSALS)
    session.say(request.format(person=pick("person", session.rng), city=pick("city", session.rng)))
    session.answer(answer)


STEPS = ("one", "one", "one", "one", "one", "one", "pair", "unclear", "plain", "refused")
"""What a user may do next, as often as it stands here."""


def build_session(rng: Random, *, with_tools: bool = True) -> list[Record]:
    """A session of one to three steps over the two to four tools that matter to it."""
    chosen = rng.sample(TOOLS, rng.choice((2, 3, 3, 4)))
    tools = [CATALOGUE[TOOLS.index(tool)] for tool in chosen] if with_tools else None
    session = Session(rng, rng.choice((*SYSTEM_PROMPTS, *SYSTEM_PROMPTS, None)), tools)
    for _ in range(rng.choice((1, 2, 2, 2, 2, 2, 2, 3))):
        step = rng.choice(STEPS)
        if step == "plain":
            ask_plain(session)
        elif step == "refused":
            ask_refused(session)
        elif step == "pair" and (pairable := [tool for tool in chosen if tool.pair]):
            ask_pair(session, rng.choice(pairable))
        elif step == "unclear":
            ask_unclear(session, rng.choice(chosen))
        else:
            ask_one(session, rng.choice(chosen))
    return session.calls


def build_content_session(rng: Random) -> list[Record]:
    """A session that writes its call into `content` as a JSON list, as some agents log it."""
    chosen = rng.sample(TOOLS, 3)
    session = Session(rng, SYSTEM_PROMPTS[0], [CATALOGUE[TOOLS.index(tool)] for tool in chosen])
    arguments = draw_arguments(chosen[0], rng)
    session.say(rng.choice(chosen[0].requests).format(**arguments))
    session.answer(json.dumps([{"name": chosen[0].name, "arguments": arguments}]))
    return session.calls


BROKEN_KINDS = ("bad_json", "empty_output", "unknown_role", "bad_arguments")


def break_record(record: Record, kind: str) -> str:
    """The log line of `record`, broken in the way of `kind`."""
    copy = json.loads(json.dumps(record))
    if kind == "empty_output":
        copy["response"] = {"role": "assistant", "content": ""}
    elif kind == "unknown_role":
        copy["request"]["messages"].append({"role": "robot", "content": "beep"})
    elif kind == "bad_arguments":
        arguments = "{part: Lumen"
        call = {"id": "call_broken", "type": "function", "function": {"name": "check_stock", "arguments": arguments}}
        copy["response"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    line = compact(copy)
    return line[: len(line) * 2 // 3] if kind == "bad_json" else line


def build_sessions(rng: Random, num_sessions: int, num_broken: int) -> list[list[str]]:
    """The lines of every session file; the last `num_broken` lines that are added to some files are broken."""
    sessions = []
    for number in range(num_sessions):
        if number % 100 == 40:
            sessions.append(build_content_session(rng))
        else:
            sessions.append(build_session(rng, with_tools=number % 100 != 70))
    lines = [[compact(record) for record in session] for session in sessions]
    for number in range(num_broken):
        # Two broken lines a file: odd sessions only, so that no special session above is among them.
        place = (number // 2) * 61 + 5
        record = sessions[place][0] if number % 2 else sessions[place][-1]
        lines[place].append(break_record(record, BROKEN_KINDS[number % len(BROKEN_KINDS)]))
    return lines
