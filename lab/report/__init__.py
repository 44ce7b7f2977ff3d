"""report: one page that says what a run was worth, and the same in numbers.

Reads the run's metrics.jsonl, evaluation/, served_chat.json, the dataset and every stage's manifest; writes
reports/NAME/index.html (self-contained: it opens from a mail or a USB stick) and summary.json.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.config import TINY, Settings
from lab.records import Chat
from lab.report import charts, collect, examples, provenance
from lab.report.collect import CONTENDERS, StageRow
from lab.store import Outcome, Step, atomic_file, count_lines, current, finish, need, read_json, read_jsonl, write_json

Figures = dict[str, dict[str, Any]]


def run(settings: Settings) -> Outcome:
    """Write page and summary, unless they are up to date with everything that they show."""
    started = time.time()
    out_dir = settings.path("reports") / settings.run_dir.name
    step = make_step(settings, out_dir)
    if not settings.force and (outcome := current(step)):
        return outcome
    figures = {name: read_json(path) for name, (path, _) in collect.evaluation_paths(settings).items()}
    rows = collect.stage_rows(settings)
    page_path, summary_path = out_dir / "index.html", out_dir / "summary.json"
    page = render(page_values(settings, figures, rows))
    with atomic_file(page_path) as file:
        file.write(page)
    write_json(summary_path, summarize(settings, figures, rows, page_path))
    note = f"{headline(figures)}; {page_path}"
    outputs = [page_path, summary_path]
    return finish(step, Outcome("report", len(step.inputs), len(outputs), outputs=outputs, note=note), started)


def make_step(settings: Settings, out_dir: Path) -> Step:
    """What the report depends on; missing files are named with the command that writes them."""
    run_dir = settings.run_dir
    inputs = [need(settings.path(f"dataset/{side}.jsonl"), "check-data") for side in ("train", "eval")]
    inputs += [need(run_dir / name, "train") for name in ("metrics.jsonl", "train.manifest.json")]
    inputs += [path for pair in collect.evaluation_paths(settings).values() for path in pair]
    inputs += [path for path in [run_dir / "served_chat.json"] if path.exists()]
    inputs += [path for path in collect.manifest_paths(settings) if path not in inputs]
    chosen = {"data": settings.data, "output_dir": settings.training.output_dir, "tiny": _is_tiny(settings)}
    return Step("report", out_dir / "manifest.json", inputs, chosen, ("report",))


def _is_tiny(settings: Settings) -> bool:
    return settings.model.base_model == TINY


def summarize(settings: Settings, figures: Figures, rows: list[StageRow], page_path: Path) -> dict[str, Any]:
    """The report in numbers, for machines."""
    return {
        **{name: _result(figures[name]) if name in figures else None for name in CONTENDERS},
        "num_eval": figures["tuned"]["num_eval"],
        "num_train": count_lines(settings.path("dataset/train.jsonl")),
        "num_rejected": sum(row["rejected"] for row in rows),
        "seconds": {row["stage"]: row["seconds"] for row in rows},
        "artifacts": {
            name: _on_volume(settings, path) for name, path in {**artifacts(settings), "report": page_path}.items()
        },
    }


def _result(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {"tool_call_exact": figures["tool_call_exact"], "loss": figures["loss"]}


def artifacts(settings: Settings) -> dict[str, Path]:
    """What the run made and is there, by name."""
    run_dir = settings.run_dir
    named = {
        "dataset_train": settings.path("dataset/train.jsonl"),
        "dataset_eval": settings.path("dataset/eval.jsonl"),
        "adapter": run_dir / "adapter",
        "merged": run_dir / "merged",
    }
    for path in sorted((run_dir / "gguf").glob("*.gguf")):
        named[f"gguf_{path.stem.removeprefix(f'{run_dir.name}-')}"] = path
    return {name: path for name, path in named.items() if path.exists()}


def _on_volume(settings: Settings, path: Path) -> str:
    """The path relative to the data volume; a run outside of it keeps its own."""
    root = settings.data.data_dir
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def page_values(settings: Settings, figures: Figures, rows: list[StageRow]) -> dict[str, Any]:
    """Everything that the template shows."""
    run_dir = settings.run_dir
    chats = {chat.id: chat for chat in read_jsonl(settings.path("dataset/eval.jsonl"), Chat)}
    predictions = collect.read_predictions(settings, chats)
    served_path = run_dir / "served_chat.json"
    train_manifest = read_json(run_dir / "train.manifest.json")
    return {
        "name": run_dir.name,
        "headline": headline(figures),
        "figures": figures,
        "num_train": count_lines(settings.path("dataset/train.jsonl")),
        "loss_svg": charts.loss_chart(collect.read_curve(run_dir / "metrics.jsonl")),
        "exact_svg": charts.exact_chart(figures),
        "rows": rows,
        "served": served_values(read_json(served_path)) if served_path.exists() else None,
        "groups": examples.choose(chats, predictions),
        "num_turns": len(predictions["tuned"]),
        "made": provenance.made(train_manifest),
        "artifacts": {name: (_on_volume(settings, path), size(path)) for name, path in artifacts(settings).items()},
        "repeat": provenance.repeat_commands(settings, train_manifest),
    }


def headline(figures: Figures) -> str:
    """The result in a few words, such as `base 1.2 % → tuned 76.2 %`."""
    return " → ".join(f"{name} {percent(found['tool_call_exact'])}" for name, found in figures.items())


def percent(share: float | None) -> str:
    """A share in words; None is what no call was held out for."""
    return "–" if share is None else f"{100 * share:.1f} %"


def served_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The chat with the served model as the page shows it."""
    answer = {"role": "assistant", "content": record["content"], "tool_calls": record["tool_calls"]}
    return {
        "backend": record["backend"],
        "model": record["model"],
        "url": record["url"],
        "tools": examples.tool_names(record["tools"]),
        "messages": [examples.said(message) for message in [*record["messages"], answer]],
    }


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def render(values: Mapping[str, Any]) -> str:
    """The page. Everything but the two charts is escaped: what a model answers is not to be trusted."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    drawn = {name: Markup(values[name]) for name in ("loss_svg", "exact_svg")}
    return environment.get_template("template.html").render({**values, **drawn})
