"""Converts the merged model to GGUF and quantizes it with llama.cpp, then checks the tokens.

Reads the run's `merged/` and the held-out conversations; writes `gguf/`: NAME-F16.gguf, one file a quantization and
`tokens.json`. A GGUF whose tokens differ from the trainer's is a model that answers gibberish: it is not left there.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import time
from pathlib import Path

from lab import store
from lab.config import Settings
from lab.errors import UsageError
from lab.export import llama_cpp, token_check
from lab.export.llama_cpp import Tools
from lab.export.tool import run_tool
from lab.store import Outcome, Step
from lab.tokens import load_renderer

STAGE = "quantize"
FULL = "F16"
_TYPE_LINE = re.compile(r"^\s*\d+\s+or\s+(\S+)\s*:", re.MULTILINE)
_FALLBACKS = re.compile(r"(\d+) of \d+ tensor\(s\) required fallback quantization")


def run(settings: Settings) -> Outcome:
    """Convert, quantize and check, unless `gguf/` is up to date; raises GateError where tokens differ."""
    merged_dir = store.need(settings.run_dir / "merged", "merge")
    eval_path = store.need(settings.path("dataset/eval.jsonl"), "check-data")
    step = _step(settings, merged_dir, eval_path)
    if not settings.force and (done := store.current(step)):
        return done
    started = time.time()
    tools = llama_cpp.locate(settings)
    quants = wanted_quants(settings.export.quants, known_quants(tools))
    gguf_dir = settings.run_dir / "gguf"
    with store.atomic_dir(gguf_dir) as partial:
        full_path = gguf_path(partial, settings, FULL)
        convert(tools, merged_dir, full_path, settings.run_dir / "logs")
        renderer = load_renderer(settings, str(merged_dir))
        num_prompts = token_check.run_check(tools, full_path, renderer, eval_path)
        store.write_json(partial / "tokens.json", {"num_prompts": num_prompts, "identical": True})
        notes = [_size_note(full_path, FULL, 0)]
        for quant in quants:
            path = gguf_path(partial, settings, quant)
            notes.append(_size_note(path, quant, quantize(tools, full_path, path, quant, settings.run_dir / "logs")))
    note = f"{', '.join(notes)}; token ids of {num_prompts} held-out prompts identical; {tools.version}"
    return store.finish(step, Outcome(STAGE, 1, len(notes), outputs=[gguf_dir], note=note), started)


def _step(settings: Settings, merged_dir: Path, eval_path: Path) -> Step:
    decisive = {
        "quants": settings.export.quants,
        "inject_tool_preamble": settings.data.inject_tool_preamble,
        "inject_tool_catalog": settings.data.inject_tool_catalog,
    }
    inputs = [*sorted(path for path in merged_dir.iterdir() if path.is_file()), eval_path]
    code = ("export/quantize.py", "export/token_check.py", "tokens.py")
    return Step(STAGE, settings.run_dir / "gguf.manifest.json", inputs, decisive, code)


def gguf_path(gguf_dir: Path, settings: Settings, quant: str) -> Path:
    """`gguf/demo-Q4_K_M.gguf` of the run `demo`."""
    return gguf_dir / f"{settings.run_dir.name}-{quant}.gguf"


def known_quants(tools: Tools) -> list[str]:
    """The types that this llama-quantize itself lists."""
    said = subprocess.run([tools.quantize, "--help"], capture_output=True, text=True, errors="replace")
    return _TYPE_LINE.findall(said.stdout + said.stderr)


def wanted_quants(quants: list[str], known: list[str]) -> list[str]:
    """The types to make beside F16; raises UsageError for one that llama-quantize does not know."""
    for quant in quants:
        if quant not in known:
            near = difflib.get_close_matches(quant.upper(), known, n=1)
            raise UsageError(
                f"llama-quantize knows no type {quant!r}",
                where="LLM_EXPORT__QUANTS",
                mend=f"did you mean {near[0]}?" if near else f"it knows {', '.join(known)}",
            )
    return [quant for quant in dict.fromkeys(quants) if quant != FULL]


def convert(tools: Tools, merged_dir: Path, out_path: Path, log_dir: Path) -> None:
    """llama.cpp's own converter, in this Python's environment (it imports torch and transformers)."""
    command: list[str | Path] = [
        sys.executable,
        tools.converter,
        merged_dir,
        "--outfile",
        out_path,
        "--outtype",
        FULL.lower(),
    ]
    run_tool(command, log_dir / "convert.log", "convert to GGUF")


def quantize(tools: Tools, full_path: Path, out_path: Path, quant: str, log_dir: Path) -> int:
    """Quantize the F16 file; returns the number of weights that llama.cpp had to give a coarser or finer type."""
    said = run_tool(
        [tools.quantize, full_path, out_path, quant], log_dir / f"quantize-{quant}.log", f"quantize {quant}"
    )
    found = _FALLBACKS.search(said)
    return int(found[1]) if found else 0


def _size_note(path: Path, quant: str, num_fallbacks: int) -> str:
    # K-quants take rows in blocks of 256; llama.cpp says so in its log only.
    fallbacks = f" ({num_fallbacks} weights in a fallback type)" if num_fallbacks else ""
    return f"{quant} {path.stat().st_size / 1e6:.1f} MB{fallbacks}"
