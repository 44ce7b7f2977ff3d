"""doctor: what this machine has, and what each missing thing switches off.

Reads the machine and the settings; writes to the terminal only. Keys are named, never shown.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import config, variables
from lab.config import Settings


@dataclass(frozen=True)
class Finding:
    """One thing looked for: what was found, and what its absence means (empty where it is there)."""

    name: str
    found: str
    without_it: str = ""


def run(settings: Settings) -> None:
    """Print every finding."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "found", "without it", title="This machine")
    for finding in examine(settings):
        table.add_row(finding.name, finding.found, finding.without_it)
    Console().print(table)


def examine(settings: Settings) -> list[Finding]:
    """Everything that decides what works here."""
    return [
        Finding("Python", platform.python_version()),
        Finding("processor", f"{os.cpu_count()} cores, {memory_gib():.0f} GiB memory"),
        disk(settings.data.data_dir),
        gpu(),
        torch_build(),
        docker(),
        compiler(),
        llama_cpp(settings),
        ollama(settings),
        embedded_server(),
        *keys(),
    ]


def memory_gib() -> float:
    """Physical memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def disk(data_dir: Path) -> Finding:
    place = data_dir if data_dir.exists() else Path.cwd()
    free = shutil.disk_usage(place).free / 2**30
    low = "" if free > 5 else "less than 5 GiB: merging and quantizing a 7B model needs about 35"
    return Finding("disk", f"{free:.0f} GiB free on {place}", low)


def gpu() -> Finding:
    """NVIDIA GPUs, as the driver's own tool names them."""
    said = first_line("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return Finding("NVIDIA GPU", said or "none", "" if said else "training runs on the processor: tiny models only")


def torch_build() -> Finding:
    """The installed PyTorch, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding("PyTorch", version("torch"))
    except PackageNotFoundError:
        return Finding("PyTorch", "none", "no pretrain, train, evaluate, merge; `make setup` installs it")


def docker() -> Finding:
    server = first_line("docker", "version", "--format", "{{.Server.Version}}")
    return Finding("Docker engine", server or "none answers", "" if server else "nothing yet: every stage runs locally")


def compiler() -> Finding:
    path = shutil.which("c++") or shutil.which("g++")
    return Finding(
        "C++ compiler", path or "none", "" if path else "llama.cpp cannot be built: apt install build-essential"
    )


def llama_cpp(settings: Settings) -> Finding:
    if settings.export.llama_cpp_dir:
        return Finding("llama.cpp", f"LLM_EXPORT__LLAMA_CPP_DIR = {settings.export.llama_cpp_dir}")
    if path := shutil.which("llama-quantize"):
        return Finding("llama.cpp", path)
    built = sorted(settings.export.cache_dir.expanduser().glob("llama.cpp-*"))
    if built:
        return Finding("llama.cpp", str(built[-1]))
    return Finding("llama.cpp", "none", "quantize builds it once, about 4 minutes on 2 cores (make llama-cpp)")


def ollama(settings: Settings) -> Finding:
    import httpx

    try:
        version = httpx.get(f"{settings.serve.ollama_host}/api/version", timeout=2).json()["version"]
        return Finding("Ollama", f"{version} at {settings.serve.ollama_host}")
    except (httpx.HTTPError, ValueError, KeyError):
        return Finding("Ollama", "none answers", "ollama-serve takes the embedded llama.cpp server")


def embedded_server() -> Finding:
    there = importlib.util.find_spec("xllamacpp") is not None
    return Finding("embedded server", "xllamacpp" if there else "none", "" if there else "no serving without Ollama")


def keys() -> list[Finding]:
    """The vendors' variables: set or not, without a value."""
    return [
        Finding(name, "set" if is_set else "not set", "" if is_set else variables.VENDOR_VARIABLES[name])
        for name, is_set in variables.set_vendor_keys(config.environment()).items()
    ]


def first_line(*command: str) -> str:
    """First line that a command prints, or nothing where it is not there or fails."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip().splitlines()[0] if said.stdout.strip() else ""
