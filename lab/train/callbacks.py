"""Shows the course of a training and adds its speed to the log.

Reads the trainer's state and writes to the terminal; imported only by a training, since it needs Transformers.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab.progress import progress


class ProgressCallback(TrainerCallback):
    """One bar over all steps; `tokens_per_second` goes into the training curve."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._last = (0.0, 0.0)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._advance = self._stack.enter_context(progress("train", state.max_steps))
        self._advance(state.global_step)
        self._last = (time.monotonic(), 0.0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._advance(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or "num_tokens" not in logs:
            return
        now, seen = time.monotonic(), float(logs["num_tokens"])
        before, seen_before = self._last
        if seen_before and now > before:
            state.log_history[-1]["tokens_per_second"] = round((seen - seen_before) / (now - before), 1)
        self._last = (now, seen)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._stack.close()
