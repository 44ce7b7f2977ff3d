"""Reads the tables beside it (sample_*.py).
Writes the tool catalogue, sessions, Langfuse and LangSmith exports and pretraining text, the same each time.
Why: the demo needs traces of a known agent, and a sample that is made by a script can be read, checked and changed.
"""

import argparse
import json
from pathlib import Path
from random import Random

from sample_pretrain import build_pretrain
from sample_services import build_exports
from sample_sessions import CATALOGUE, build_sessions
from sample_values import compact

SEED = 20
NUM_SESSIONS = 580
NUM_BROKEN_LINES = 16
EXPORTED_SESSIONS = slice(20, 30)
"""Ten sessions without broken lines that are exported from the trace services too."""
NUM_PRETRAIN_CHATS = 720
NUM_PRETRAIN_TEXTS = 100


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_catalogue(path: Path) -> None:
    """One tool a line: a change of one tool is a change of one line."""
    tools = ",\n".join(f"  {json.dumps(tool)}" for tool in CATALOGUE)
    write_lines(path, ["[", tools, "]"])


def write_samples(data_dir: Path) -> None:
    """Writes every sample under `data_dir`; session files of an earlier make go first."""
    samples_dir = data_dir / "samples"
    sessions_dir = samples_dir / "sessions"
    for old in sessions_dir.glob("agent-session-*.jsonl"):
        old.unlink()
    write_catalogue(data_dir / "tool_catalogue.json")
    sessions = build_sessions(Random(SEED), NUM_SESSIONS, NUM_BROKEN_LINES)
    for number, lines in enumerate(sessions, start=1):
        write_lines(sessions_dir / f"agent-session-{number:04d}.jsonl", lines)
    exported = [[json.loads(line) for line in lines] for lines in sessions[EXPORTED_SESSIONS]]
    observations, runs = build_exports(exported, SEED + 2)
    write_lines(samples_dir / "langfuse" / "observations.jsonl", [compact(observation) for observation in observations])
    write_lines(samples_dir / "langsmith" / "runs.jsonl", [compact(run) for run in runs])
    pretrain = build_pretrain(Random(SEED + 1), NUM_PRETRAIN_CHATS, NUM_PRETRAIN_TEXTS, CATALOGUE)
    write_lines(samples_dir / "pretrain.jsonl", pretrain)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sample data of the demo.")
    data_dir = Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=Path, default=data_dir, help="the data folder to write into")
    write_samples(parser.parse_args().out)


if __name__ == "__main__":
    main()
