"""What check-data prints: counts and token lengths of the dataset, and conversations with the learned tokens marked.

Reads dataset/{train,eval}.jsonl and writes to the terminal only.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from lab.config import Settings
from lab.records import Chat
from lab.store import read_jsonl
from lab.tokens import IGNORE_INDEX, Renderer

if TYPE_CHECKING:
    from rich.text import Text

SIDES = ("train", "eval")


def read_side(settings: Settings, side: str) -> list[Chat]:
    """The conversations of one side of the dataset."""
    return list(read_jsonl(settings.path(f"dataset/{side}.jsonl"), Chat))


def show_stats(settings: Settings, renderer: Renderer) -> None:
    """A table of conversations, sessions, answers by type and token lengths."""
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", *SIDES, title="What will be learned")
    columns = [side_stats(read_side(settings, side), renderer) for side in SIDES]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    Console().print(table)


def side_stats(chats: list[Chat], renderer: Renderer) -> dict[str, str]:
    """Figures of one side, ready to print."""
    tokenized = [renderer.tokenize(chat) for chat in chats]
    lengths = [len(row.input_ids) for row in tokenized]
    answers = [chat.messages[turn] for chat in chats for turn in chat.target_indices]
    num_calls = sum(bool(answer.tool_calls) for answer in answers)
    num_targets = sum(row.num_targets for row in tokenized)
    return {
        "conversations": str(len(chats)),
        "sessions": str(len({chat.origin.group for chat in chats})),
        "answers with tool calls": str(num_calls),
        "answers in text": str(len(answers) - num_calls),
        "tokens": f"{sum(lengths):,}",
        "tokens learned": f"{num_targets:,} ({num_targets / sum(lengths):.0%})",
        "tokens a conversation, mean": f"{statistics.fmean(lengths):.0f}",
        "tokens a conversation, median": f"{statistics.median(lengths):.0f}",
        "tokens a conversation, longest": str(max(lengths)),
    }


def show_examples(settings: Settings, renderer: Renderer) -> None:
    """The first conversations of the training side as the model sees them: learned tokens stand between ⟦ and ⟧."""
    from rich.console import Console

    console = Console(highlight=False)
    for number, chat in enumerate(read_side(settings, "train")[: settings.check.num_examples], start=1):
        tokenized = renderer.tokenize(chat)
        console.rule(f"example {number}: {chat.id}")
        console.print(f"session {chat.origin.group}, from {chat.origin.source}, {len(chat.origin.ids)} calls")
        console.print(f"{len(tokenized.input_ids)} tokens, {tokenized.num_targets} learned (between ⟦ and ⟧)")
        console.print(mark(renderer, tokenized.input_ids, tokenized.labels))


def mark(renderer: Renderer, input_ids: list[int], labels: list[int]) -> Text:
    """The decoded conversation with its learned stretches marked."""
    from rich.text import Text

    text = Text()
    start = 0
    while start < len(input_ids):
        learned = labels[start] != IGNORE_INDEX
        end = start
        while end < len(input_ids) and (labels[end] != IGNORE_INDEX) == learned:
            end += 1
        piece = renderer.tokenizer.decode(input_ids[start:end], skip_special_tokens=False)
        text.append(f"⟦{piece}⟧" if learned else piece, style="bold green" if learned else "dim")
        start = end
    return text
