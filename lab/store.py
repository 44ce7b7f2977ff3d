"""Files on the data volume: strict readers, atomic writers, rejects files, manifests, and "is this stage up to date?".

A file that exists is complete: it was written under a temporary name, flushed and renamed. Beside each output lies a
manifest, written last, with what the output was made from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from lab.errors import LabError
from lab.records import Record, Reject

R = TypeVar("R", bound=Record)
PACKAGE_DIR = Path(__file__).parent
RECORDED_PACKAGES = ("torch", "transformers", "trl", "peft", "tokenizers", "sentencepiece", "xllamacpp", "pydantic")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path, model: type[R]) -> Iterator[R]:
    """Records of a file that a stage wrote; raises LabError with file and line where one does not fit."""
    for number, text in numbered_lines(path):
        try:
            yield model.model_validate_json(text)
        except ValidationError as error:
            mend = "the stage that wrote it must run again"
            raise LabError(describe(error), where=f"{path}:{number}", mend=mend) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-blank lines with their numbers from 1. Only a line feed ends a line: U+2028 may stand inside a string."""
    # Bytes that are not UTF-8 come through as surrogates: one bad line is then that line's error, not the file's.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def describe(error: ValidationError) -> str:
    """The first thing that does not fit, as `field: rule`, without the value (it may be a user's data)."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(part) for part in first["loc"])
    rule = first["msg"].removeprefix("Value error, ")
    return f"{location}: {rule}" if location else rule


def need(path: Path, command: str) -> Path:
    """The path, if it exists; else a LabError that names the command which writes it."""
    if not path.exists():
        raise LabError("not there yet", where=str(path), mend=f"`make {command}` writes it")
    return path


def count_lines(path: Path) -> int:
    """Number of records in a file."""
    return sum(1 for _ in numbered_lines(path))


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears under its name only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open(
            mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "\n"
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when the block ends well; an older one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.replace(old)  # removing it in its place would leave half a folder under the name, if we are stopped
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write records, one a line, and return how many."""
    count = 0
    with atomic_file(path) as file:
        for record in records:
            file.write(to_line(record))
            count += 1
    return count


def to_line(record: Record) -> str:
    """A record as one line of JSON; keys without a value are left out."""
    return record.model_dump_json(exclude_none=True) + "\n"


def write_json(path: Path, value: object) -> None:
    """Write a JSON file for people and machines."""
    with atomic_file(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """A JSON file; raises LabError where it is not one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"not JSON: {error}", where=str(path)) from None


class Rejects:
    """Records put aside by a stage: kept with reason, file and line, written together at the end of the stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rejects: list[Reject] = []

    def add(self, reason: str, detail: str, *, file: Path, line: int, record_id: str | None = None) -> None:
        self.rejects.append(Reject(id=record_id, reason=reason, detail=detail, file=str(file), line=line))

    def write(self) -> int:
        """Write the rejects file (an empty one too: it says that nothing was rejected) and return their number."""
        return write_jsonl(self.path, self.rejects)

    def by_reason(self) -> dict[str, int]:
        reasons = [reject.reason for reject in self.rejects]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


# --- manifests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What decides a stage's output: input files, settings and code. Its manifest is written last."""

    stage: str
    manifest_path: Path
    inputs: Sequence[Path]
    settings: Mapping[str, object]
    code: tuple[str, ...] = ()
    """Modules and packages of the lab besides the stage's own ground floor, e.g. `train` or `tokens.py`."""


@dataclass
class Outcome:
    """What a stage did: the numbers of its summary line."""

    stage: str
    num_in: int = 0
    num_out: int = 0
    num_rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    outputs: list[Path] = field(default_factory=list)
    note: str = ""
    up_to_date: bool = False

    def summary(self) -> str:
        """One line, such as `format: 604 in, 600 out, 4 rejected (empty_output 4) in 0.3 s`."""
        if self.up_to_date:
            return f"{self.stage}: up to date" + (f" ({self.note})" if self.note else "")
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        rejected = f", {self.num_rejected} rejected" + (f" ({reasons})" if reasons else "")
        note = f"; {self.note}" if self.note else ""
        return f"{self.stage}: {self.num_in} in, {self.num_out} out{rejected} in {self.seconds:.1f} s{note}"


def current(step: Step) -> Outcome | None:
    """The outcome that the manifest records, if inputs, settings, code and outputs are still what it says."""
    try:
        manifest = json.loads(step.manifest_path.read_text(encoding="utf-8"))
        same = (
            manifest["stage"] == step.stage
            and manifest["settings"] == plain(step.settings)
            and manifest["code"] == code_hash(step.code)
            and list(manifest["inputs"]) == [str(path) for path in step.inputs]
            and all(_is_unchanged(Path(path), seen) for path, seen in manifest["inputs"].items())
            and all(_is_unchanged(Path(path), seen) for path, seen in manifest["outputs"].items())
        )
        if not same:
            return None
        counts = manifest["counts"]
        outputs = [Path(path) for path in manifest["outputs"]]
        return Outcome(step.stage, seconds=manifest["seconds"], outputs=outputs, up_to_date=True, **counts)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no manifest, or one of another version: the stage runs


def finish(step: Step, outcome: Outcome, started: float) -> Outcome:
    """Write the manifest beside a stage's outputs. `started` is `time.time()` of its beginning."""
    outcome.seconds = round(time.time() - started, 3)
    counts = {key: asdict(outcome)[key] for key in ("num_in", "num_out", "num_rejected", "reasons", "note")}
    manifest = {
        "stage": step.stage,
        "settings": plain(step.settings),
        "inputs": {str(path): _fingerprint(path) for path in step.inputs},
        "outputs": {str(path): _fingerprint(path) for path in _files(outcome.outputs)},
        "counts": counts,
        "code": code_hash(step.code),
        "packages": _versions(),
        "python": platform.python_version(),
        "commit": git_commit(),
        "time": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": outcome.seconds,
        "host": platform.node(),
    }
    write_json(step.manifest_path, manifest)
    return outcome


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files among the paths and below those that are folders."""
    found = [[path] if path.is_file() else sorted(path.rglob("*")) for path in paths]
    return [path for group in found for path in group if path.is_file()]


def _fingerprint(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"sha256": file_hash(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_unchanged(path: Path, seen: Mapping[str, Any]) -> bool:
    """Same size and time, or else same content: a large file is hashed again only when it was touched."""
    status = path.stat()
    if status.st_size != seen["size"]:
        return False
    return bool(status.st_mtime_ns == seen["mtime_ns"] or file_hash(path) == seen["sha256"])


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_hash(parts: tuple[str, ...]) -> str:
    """sha256 over the lab's own code that a stage depends on: changed code makes its outputs stale."""
    digest = hashlib.sha256()
    for part in sorted({*parts, "records.py"}):
        path = PACKAGE_DIR / part
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in {".py", ".jinja", ".html"}:
                digest.update(file.relative_to(PACKAGE_DIR).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def plain(value: object) -> Any:
    """Settings as JSON has them; secrets only say that they are set."""
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _versions() -> dict[str, str]:
    """Versions of the packages that decide results, as far as they are installed. Imports none of them."""
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """Commit of the lab's code, with `+` where files differ from it; None outside a repository."""
    root = PACKAGE_DIR.parent
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None
