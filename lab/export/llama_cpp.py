"""Finds llama.cpp's converter, quantizer and tokenizer: in the folder that is set, on the PATH, else built from source.

Reads `LLM_EXPORT__LLAMA_CPP_DIR` and `LLM_EXPORT__CACHE_DIR`; writes nothing itself. No wheel on PyPI carries
`llama-quantize`, so a machine without it builds it once (lab/export/llama_cpp_build.py).
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab.config import Settings
from lab.errors import LabError
from lab.export import llama_cpp_build
from lab.store import Outcome

QUANTIZE, TOKENIZE, CONVERTER = "llama-quantize", "llama-tokenize", "convert_hf_to_gguf.py"
BINARY_DIRS = ("build/bin", "bin", "")


@dataclass(frozen=True)
class Tools:
    """llama.cpp's programs, all of one origin."""

    quantize: Path
    tokenize: Path
    converter: Path
    version: str
    origin: str
    """Where they were found, for people."""


def run_build(settings: Settings) -> Outcome:
    """`lab build-llama`: build llama.cpp's tools where none are found."""
    started = time.time()
    if tools := find(settings):
        return Outcome("build-llama", up_to_date=True, note=f"{tools.version}, {tools.origin}")
    tools = locate(settings)
    seconds = round(time.time() - started, 3)
    outputs = [tools.quantize, tools.tokenize, tools.converter]
    return Outcome("build-llama", num_in=1, num_out=len(outputs), seconds=seconds, outputs=outputs, note=tools.origin)


def locate(settings: Settings) -> Tools:
    """The tools, built first where none are found (minutes, once); raises LabError where that cannot be."""
    if tools := find(settings):
        return tools
    pin = llama_cpp_build.read_pin()
    return _built(llama_cpp_build.build(pin, _cache_dir(settings)), pin)


def find(settings: Settings) -> Tools | None:
    """The tools, if they are there already; raises LabError where the folder that is set lacks one."""
    if settings.export.llama_cpp_dir is not None:
        return _in_folder(settings.export.llama_cpp_dir.expanduser())
    return _on_path() or _in_cache(_cache_dir(settings))


def _in_folder(folder: Path) -> Tools:
    quantize, tokenize = (_binary(folder, name) for name in (QUANTIZE, TOKENIZE))
    converter = folder / CONVERTER
    if not converter.is_file():
        raise _missing(folder, CONVERTER)
    return Tools(quantize, tokenize, converter, _version(tokenize), str(folder))


def _binary(folder: Path, name: str) -> Path:
    for place in BINARY_DIRS:
        if found := shutil.which(name, path=str(folder / place)):
            return Path(found)
    raise _missing(folder, name)


def _missing(folder: Path, name: str) -> LabError:
    return LabError(
        f"{name} is not in {folder}",
        where="LLM_EXPORT__LLAMA_CPP_DIR",
        mend=f"build it there (cmake --build build --target {QUANTIZE} {TOKENIZE}), or unset the variable",
    )


def _on_path() -> Tools | None:
    quantize, tokenize, converter = (shutil.which(name) for name in (QUANTIZE, TOKENIZE, CONVERTER))
    if not (quantize and tokenize and converter):
        return None
    return Tools(Path(quantize), Path(tokenize), Path(converter), _version(Path(tokenize)), "on the PATH")


def _in_cache(cache_dir: Path) -> Tools | None:
    pin = llama_cpp_build.read_pin()
    folder = llama_cpp_build.built_dir(pin, cache_dir)
    return _built(folder, pin) if folder.is_dir() else None


def _built(folder: Path, pin: llama_cpp_build.Pin) -> Tools:
    version = f"llama.cpp of {llama_cpp_build.PACKAGE} {pin.version}"
    return Tools(
        folder / "bin" / QUANTIZE, folder / "bin" / TOKENIZE, folder / CONVERTER, version, f"built in {folder}"
    )


def _cache_dir(settings: Settings) -> Path:
    return settings.export.cache_dir.expanduser()


def _version(tokenize: Path) -> str:
    """Such as `version: 7406 (abc1234)`; llama-quantize itself does not say."""
    said = subprocess.run([tokenize, "--version"], capture_output=True, text=True, errors="replace")
    lines = [line for line in (said.stderr + said.stdout).splitlines() if line.startswith("version")]
    return f"llama.cpp {lines[0]}" if lines else "llama.cpp of unknown version"
