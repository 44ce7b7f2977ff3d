"""Reads the sessions' records.
Writes nothing: turns LLM calls into records of Langfuse's v1 observations API and of LangSmith's runs API.
Why: extractors have to read the services' own shapes, and a committed export lets them be tried without an account.
"""

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sample_values import listed

MODEL = "gpt-4o-2024-08-06"
FIRST_CALL = datetime(2026, 9, 14, 8, 12, 3, 120000, tzinfo=UTC)
GAP = timedelta(minutes=7)
PROJECT_ID = "clproj0ambler"
LANGSMITH_PROJECT = "3f3af1ec-ebbd-4410-ab41-7ec0d27bbfcb"


EMPTY_FIELDS = listed(
    "completionStartTime promptId promptName promptVersion modelId inputPrice outputPrice totalPrice timeToFirstToken "
    "calculatedInputCost calculatedOutputCost calculatedTotalCost usagePricingTierName usagePricingTierId"
)
"""What Langfuse sends as null where neither prompts nor prices are kept in it."""


def usage_of(record: dict[str, Any]) -> tuple[int, int]:
    """Rough token counts of prompt and answer: four characters a token."""
    return len(json.dumps(record["request"])) // 4, max(1, len(json.dumps(record["response"])) // 4)


def request_messages(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with the system prompt in front, as the chat completions API takes them."""
    system = record["request"]["system"]
    head = [{"role": "system", "content": system}] if system else []
    return [*head, *record["request"]["messages"]]


def langfuse_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def langfuse_observation(record: dict[str, Any], trace_id: str, start: datetime, rng: Random) -> dict[str, object]:
    """A GENERATION as `GET /api/public/observations` gives it, logged by Langfuse's OpenAI integration."""
    latency = rng.randint(400, 2600)
    end = start + timedelta(milliseconds=latency)
    num_input, num_output = usage_of(record)
    usage = {"input": num_input, "output": num_output, "total": num_input + num_output}
    stored = langfuse_time(end + timedelta(seconds=5))
    messages, tools = request_messages(record), record["request"]["tools"]
    return {
        "id": f"{rng.getrandbits(64):016x}",
        "projectId": PROJECT_ID,
        "traceId": trace_id,
        "parentObservationId": None,
        "name": "OpenAI-generation",
        "type": "GENERATION",
        "environment": "production",
        "startTime": langfuse_time(start),
        "endTime": langfuse_time(end),
        "version": None,
        "createdAt": stored,
        "updatedAt": stored,
        "input": {"tools": tools, "messages": messages} if tools else messages,
        "output": record["response"],
        "metadata": {"scope": {"name": "langfuse-sdk", "version": "3.15.0"}},
        "level": "DEFAULT",
        "statusMessage": None,
        "model": MODEL,
        "modelParameters": {"temperature": 1, "max_tokens": "Infinity", "top_p": 1},
        "usageDetails": usage,
        "costDetails": {},
        "usage": {"unit": "TOKENS", **usage},
        "unit": "TOKENS",
        "promptTokens": num_input,
        "completionTokens": num_output,
        "totalTokens": num_input + num_output,
        "latency": latency / 1000,
        **dict.fromkeys(EMPTY_FIELDS),
    }


LANGCHAIN_CLASSES = {
    "system": ("SystemMessage", "system"),
    "user": ("HumanMessage", "human"),
    "assistant": ("AIMessage", "ai"),
    "tool": ("ToolMessage", "tool"),
}


def langchain_message(message: dict[str, Any]) -> dict[str, object]:
    """A message as LangChain's tracer serializes it: class path and constructor arguments."""
    name, kind = LANGCHAIN_CLASSES[message["role"]]
    arguments: dict[str, object] = {"content": message["content"] or "", "type": kind}
    if message["role"] == "assistant":
        arguments["additional_kwargs"] = {"refusal": None}
        arguments["tool_calls"] = [
            {
                "name": call["function"]["name"],
                "args": json.loads(call["function"]["arguments"]),
                "id": call["id"],
                "type": "tool_call",
            }
            for call in message.get("tool_calls", [])
        ]
        arguments["invalid_tool_calls"] = []
    if message["role"] == "tool":
        arguments |= {"tool_call_id": message["tool_call_id"], "status": "success"}
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": arguments}


def langsmith_uuid(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def langsmith_payload(record: dict[str, Any]) -> dict[str, object]:
    """`inputs`, `outputs` and `extra` of a ChatOpenAI run."""
    called = bool(record["response"].get("tool_calls"))
    generation = {
        "text": record["response"]["content"] or "",
        "generation_info": {"finish_reason": "tool_calls" if called else "stop", "logprobs": None},
        "type": "ChatGeneration",
        "message": langchain_message(record["response"]),
    }
    parameters = {"model": "gpt-4o", "model_name": "gpt-4o", "stream": False, "_type": "openai-chat", "stop": None}
    tools = record["request"]["tools"]
    return {
        "inputs": {"messages": [[langchain_message(message) for message in request_messages(record)]]},
        "outputs": {
            "generations": [[generation]],
            "llm_output": {"model_name": MODEL},
            "run": None,
            "type": "LLMResult",
        },
        "extra": {
            "invocation_params": {**parameters, **({"tools": tools} if tools else {})},
            "metadata": {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"},
            "runtime": {"sdk": "langsmith-py", "sdk_version": "0.14.17", "library": "langchain-core"},
        },
    }


def langsmith_run(record: dict[str, Any], trace_id: str, start: datetime, rng: Random) -> dict[str, object]:
    """An llm run as `POST /runs/query` gives it, traced by LangChain."""
    run_id, end = langsmith_uuid(rng), start + timedelta(milliseconds=rng.randint(400, 2600))
    num_input, num_output = usage_of(record)
    order = f"{FIRST_CALL:%Y%m%dT%H%M%S%f}Z{trace_id}.{start:%Y%m%dT%H%M%S%f}Z{run_id}"
    return {
        "id": run_id,
        "name": "ChatOpenAI",
        "run_type": "llm",
        "start_time": f"{start:%Y-%m-%dT%H:%M:%S.%f}",
        "end_time": f"{end:%Y-%m-%dT%H:%M:%S.%f}",
        "status": "success",
        "error": None,
        "events": [],
        **langsmith_payload(record),
        "parent_run_id": trace_id,
        "parent_run_ids": [trace_id],
        "trace_id": trace_id,
        "dotted_order": order,
        "session_id": LANGSMITH_PROJECT,
        "reference_example_id": None,
        "tags": [],
        "prompt_tokens": num_input,
        "completion_tokens": num_output,
        "total_tokens": num_input + num_output,
        "feedback_stats": None,
        "app_path": f"/o/ambler/projects/p/desk/r/{run_id}",
        "in_dataset": False,
    }


def build_exports(sessions: list[list[dict[str, Any]]], seed: int) -> tuple[list[object], list[object]]:
    """Every call of `sessions` as a Langfuse observation and as a LangSmith run; a session is a trace in both."""
    rng = Random(seed)
    observations: list[object] = []
    runs: list[object] = []
    for number, session in enumerate(sessions):
        langfuse_trace, langsmith_trace = f"{rng.getrandbits(128):032x}", langsmith_uuid(rng)
        for step, record in enumerate(session):
            start = FIRST_CALL + number * GAP + step * timedelta(seconds=9)
            observations.append(langfuse_observation(record, langfuse_trace, start, rng))
            runs.append(langsmith_run(record, langsmith_trace, start, rng))
    return observations, runs
