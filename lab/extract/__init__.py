"""extract: brings an agent's logged LLM calls onto the data volume.

Reads session logs (`agent-session-*.jsonl`), writes raw/sessions/observations.jsonl and rejects.jsonl beside it, so
that every later stage sees one record shape whatever the source was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from lab.config import Settings
from lab.errors import LabError
from lab.extract.sessions import Unusable, read_call
from lab.records import Observation
from lab.store import Outcome, Rejects, Step, current, finish, numbered_lines, write_jsonl

log = logging.getLogger("lab.extract")
SAMPLES = "samples/sessions"


def run(settings: Settings) -> Outcome:
    """Extract all session logs; lines that cannot be used go to the rejects file."""
    started = time.time()
    train_files = find_files(settings.data.data_dir, settings.data.train_files)
    eval_files = find_files(settings.data.data_dir, settings.data.eval_files)
    side = "train" if eval_files else None
    files: dict[Path, str | None] = {**dict.fromkeys(train_files, side), **dict.fromkeys(eval_files, "eval")}
    out_dir = settings.path("raw/sessions")
    step = Step(
        "extract", out_dir / "manifest.json", list(files), {"eval_files": sorted(map(str, eval_files))}, ("extract",)
    )
    if not settings.force and (outcome := current(step)):
        return outcome
    rejects = Rejects(out_dir / "rejects.jsonl")
    observations_path = out_dir / "observations.jsonl"
    num_out = write_jsonl(observations_path, read_sessions(settings.data.data_dir, files, rejects))
    num_rejected = rejects.write()
    outcome = Outcome("extract", num_out + num_rejected, num_out, num_rejected, rejects.by_reason())
    outcome.outputs = [observations_path, rejects.path]
    outcome.note = f"{len(files)} files"
    return finish(step, outcome, started)


def find_files(data_dir: Path, patterns: list[str]) -> list[Path]:
    """Files by glob patterns relative to the data volume, sorted.

    A bare name pattern that matches nothing in the volume itself is looked for among the samples, and said so.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = _glob(data_dir, pattern)
        if not matches and "/" not in pattern and (matches := _glob(data_dir / SAMPLES, pattern)):
            log.warning("no file %s in %s: taking the sample sessions of %s", pattern, data_dir, SAMPLES)
        if not matches:
            raise LabError(
                f"no file matches {pattern!r}",
                where=str(data_dir),
                mend="set LLM_DATA__TRAIN_FILES (or LLM_DATA__DATA_DIR)",
            )
        found |= set(matches)
    return sorted(found)


def _glob(folder: Path, pattern: str) -> list[Path]:
    if Path(pattern).is_absolute():
        return [path for path in Path(pattern).parent.glob(Path(pattern).name) if path.is_file()]
    return [path for path in folder.glob(pattern) if path.is_file()]


def read_sessions(data_dir: Path, files: dict[Path, str | None], rejects: Rejects) -> Iterator[Observation]:
    """Every usable call of the files, in order; a file is a session."""
    for path, split in files.items():
        name = path.relative_to(data_dir).as_posix() if path.is_relative_to(data_dir) else str(path)
        for number, text in numbered_lines(path):
            try:
                yield read_call(text, session_id=name.removesuffix(".jsonl"), line=number, split=split)
            except Unusable as error:
                rejects.add(error.reason, str(error), file=path, line=number, record_id=f"{name}:{number}")
