"""Compares the token ids of llama.cpp and of the trainer's tokenizer on held-out prompts.

Reads a GGUF and `dataset/eval.jsonl`; writes nothing. The commonest way to lose a model on its way to a server is a
vocabulary that converts without an error and splits the turn markers into characters.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lab.errors import GateError, LabError
from lab.export.llama_cpp import Tools
from lab.progress import progress
from lab.records import Chat
from lab.store import read_jsonl
from lab.tokens import Renderer

MAX_PROMPTS = 50


@dataclass(frozen=True)
class Prompt:
    """A held-out prompt as the trainer tokenizes it."""

    name: str
    text: str
    ids: list[int]


def run_check(tools: Tools, gguf_path: Path, renderer: Renderer, eval_path: Path) -> int:
    """Number of prompts compared, all identical; raises GateError with the first difference."""
    prompts = list(islice(held_out_prompts(renderer, eval_path), MAX_PROMPTS))
    bos = renderer.tokenizer.bos_token
    with progress("compare tokens", len(prompts)) as advance:
        for prompt in prompts:
            # A server takes off the BOS that the template wrote where the vocabulary adds one itself; where the
            # vocabulary adds one and the template wrote none, that one is a difference from training.
            has_bos = bos is not None and prompt.text.startswith(str(bos))
            served = llama_cpp_ids(tools, gguf_path, prompt.text, add_bos=not has_bos)
            if served != prompt.ids:
                raise GateError(
                    first_difference(prompt.ids, served),
                    where=prompt.name,
                    mend="llama.cpp would not see what was trained; docs/troubleshooting.md, 'token ids differ'",
                )
            advance(1)
    return len(prompts)


def held_out_prompts(renderer: Renderer, eval_path: Path) -> Iterator[Prompt]:
    """What stands before the last assistant message of the held-out conversations, one prompt a conversation."""
    for chat in read_jsonl(eval_path, Chat):
        turn = chat.target_indices[-1]  # the longest: it holds every earlier turn, tool calls and results
        text = renderer.render(chat, turn, add_generation_prompt=True)
        yield Prompt(f"{chat.id}, message {turn}", text, renderer.prompt_ids(chat, turn))


def llama_cpp_ids(tools: Tools, gguf_path: Path, text: str, *, add_bos: bool = True) -> list[int]:
    """Token ids by llama-tokenize, special tokens parsed, BOS added where the GGUF says so."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", suffix=".txt") as file:
        file.write(text)
        file.flush()
        # --no-escape: else a `\n` inside the JSON of a tool call becomes a line feed.
        command = [str(tools.tokenize), "-m", str(gguf_path), "-f", file.name, "--ids", "--no-escape", "--log-disable"]
        command += [] if add_bos else ["--no-bos"]
        said = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if said.returncode != 0:
        lines = (said.stderr + said.stdout).strip().splitlines()
        raise LabError(f"failed: {lines[-1] if lines else 'it said nothing'}", where=str(tools.tokenize))
    ids: list[int] = json.loads(said.stdout[said.stdout.index("[") :])
    return ids


def first_difference(trained: list[int], served: list[int]) -> str:
    """Such as `token 3 is 4 in training and 29901 in llama.cpp (59 against 96 tokens)`."""
    padded = zip([*trained, None], [*served, None], strict=False)
    index = next(index for index, (left, right) in enumerate(padded) if left != right)
    left, right = ((ids[index] if index < len(ids) else "nothing") for ids in (trained, served))
    counts = f"{len(trained)} against {len(served)} tokens"
    return f"token ids differ: token {index} is {left} in training and {right} in llama.cpp ({counts})"
