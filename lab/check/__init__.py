"""check-data: turns conversations into the dataset, after a look at each with the model's own tokenizer.

Reads interim/*.jsonl, writes dataset/train.jsonl, dataset/eval.jsonl and rejects.jsonl. What cannot be learned as it
stands (too long, nothing to learn, a mask that cannot be trusted) is rejected here, before a GPU is paid for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

from lab.check.show import show_examples, show_stats
from lab.config import TINY, Settings
from lab.errors import LabError
from lab.progress import progress
from lab.records import Chat
from lab.store import Outcome, Rejects, Step, current, finish, need, numbered_lines, read_jsonl, write_jsonl
from lab.tokens import Renderer, Tokenized, UntrainableError, load_renderer, tokenizer_files

Split = dict[str, list[Chat]]


def run(settings: Settings) -> Outcome:
    """Check every conversation, split by session, and show what will be learned."""
    chats_path = need(settings.path("interim/chats.jsonl"), "format")
    if settings.model.base_model == TINY:
        need(Path(settings.base_model_path) / "tokenizer.json", "pretrain")
    renderer = load_renderer(settings)
    outcome = build(settings, chats_path, renderer)
    if settings.check.stats:
        show_stats(settings, renderer)
    if settings.check.num_examples:
        show_examples(settings, renderer)
    return outcome


def build(settings: Settings, chats_path: Path, renderer: Renderer) -> Outcome:
    """Write the dataset, unless it is up to date."""
    started = time.time()
    out_dir = settings.path("dataset")
    step = Step(
        "check-data",
        out_dir / "manifest.json",
        [chats_path, *tokenizer_files(settings.base_model_path)],
        {"model": settings.model, "data": settings.data.model_dump(exclude={"train_files", "eval_files"})},
        ("check", "tokens.py"),
    )
    if not settings.force and (outcome := current(step)):
        return outcome
    rejects = Rejects(out_dir / "rejects.jsonl")
    chats = check(chats_path, renderer, settings.data.max_length, rejects)
    split = split_by_group(chats, settings.data.eval_fraction, settings.data.split_seed)
    outputs = [out_dir / f"{side}.jsonl" for side in split]
    for path, side in zip(outputs, split.values(), strict=True):
        write_jsonl(path, side)
    num_rejected = rejects.write()
    note = ", ".join(f"{len(side)} {name}" for name, side in split.items())
    outcome = Outcome("check-data", len(chats) + num_rejected, len(chats), num_rejected, rejects.by_reason(), note=note)
    outcome.outputs = [*outputs, rejects.path]
    return finish(step, outcome, started)


def check(chats_path: Path, renderer: Renderer, max_length: int, rejects: Rejects) -> list[Chat]:
    """The conversations that can be learned; the others go to the rejects."""
    total = sum(1 for _ in numbered_lines(chats_path))
    good = []
    with progress("check-data", total) as advance:
        for line, chat in enumerate(read_jsonl(chats_path, Chat), start=1):
            try:
                check_length(renderer.tokenize(chat), max_length)
                good.append(chat)
            except UntrainableError as error:
                rejects.add(error.reason, str(error), file=chats_path, line=line, record_id=chat.id)
            advance(1)
    return good


def check_length(tokenized: Tokenized, max_length: int) -> None:
    """Raise UntrainableError where the conversation is longer than the limit or has nothing to learn."""
    if len(tokenized.input_ids) > max_length:
        raise UntrainableError("too_long", f"{len(tokenized.input_ids)} tokens, LLM_DATA__MAX_LENGTH is {max_length}")
    if tokenized.num_targets == 0:
        raise UntrainableError("no_targets", "no token of an assistant message is left to learn")


def split_by_group(chats: Iterable[Chat], eval_fraction: float, seed: int) -> Split:
    """Whole sessions on one side; the draw depends on seed and session alone, so more data moves no session."""
    split: Split = {"train": [], "eval": []}
    for chat in chats:
        split[chat.origin.split or draw(chat.origin.group, eval_fraction, seed)].append(chat)
    for name, side in split.items():
        if not side:
            mend = "give more sessions, another LLM_DATA__EVAL_FRACTION, or LLM_DATA__EVAL_FILES"
            raise LabError(f"no conversation is left for {name}", where="check-data", mend=mend)
    return split


def draw(group: str, eval_fraction: float, seed: int) -> str:
    """The side of a session, by a hash: `eval` with probability `eval_fraction`."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return "eval" if int.from_bytes(digest[:8]) / 2**64 < eval_fraction else "train"
