"""Builds llama.cpp's tools from the source package of `llama-cpp-python` that Pipfile.lock pins by hash.

Reads Pipfile.lock (category `llama-cpp`) and the package index that pip is set to; writes `llama.cpp-VERSION-HASH/`
into the cache. The package itself is never installed: it is the one place where PyPI carries llama.cpp's whole tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.export.tool import run_tool
from lab.store import PACKAGE_DIR, file_hash, need, read_json

PACKAGE = "llama-cpp-python"
CATEGORY = "llama-cpp"
LOCK_PATH = PACKAGE_DIR.parent / "Pipfile.lock"
TARGETS = ("llama-quantize", "llama-tokenize")
KEPT = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "LICENSE")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # Chat parsing and model graphs are what is slow to compile, and C++; what quantizing spends its time in is C and
    # keeps -O3. Measured: docs/decisions.md.
    "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
    "CMAKE_C_FLAGS_RELEASE": "-O3 -DNDEBUG",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "GGML_OPENMP": "OFF",
    "GGML_NATIVE": "OFF",  # the cache may be carried to another machine
    "GGML_LLAMAFILE": "OFF",  # matrix products, which no tool here computes
    "GGML_CPU_REPACK": "OFF",
}


@dataclass(frozen=True)
class Pin:
    """The source package that is built: version and the sha256 values that its file may have."""

    version: str
    hashes: tuple[str, ...]


def read_pin(lock_path: Path = LOCK_PATH) -> Pin:
    """Version and hashes from Pipfile.lock; raises LabError where it pins none."""
    lock = read_json(need(lock_path, "lock"))
    try:
        entry = lock[CATEGORY][PACKAGE]
        hashes = tuple(text.removeprefix("sha256:") for text in entry["hashes"])
        return Pin(entry["version"].removeprefix("=="), hashes)
    except KeyError as error:
        raise LabError(
            f"no {error} of {PACKAGE} in category {CATEGORY}", where=str(lock_path), mend="`make lock` writes it"
        ) from None


def built_dir(pin: Pin, cache_dir: Path) -> Path:
    """Where the finished build lies. The recipe is part of its name: another recipe is another build."""
    recipe = hashlib.sha256(json.dumps([pin.hashes, OPTIONS, TARGETS, KEPT]).encode()).hexdigest()
    return cache_dir / f"llama.cpp-{pin.version}-{recipe[:12]}"


def build(pin: Pin, cache_dir: Path) -> Path:
    """Download, check, unpack and compile; returns the folder of the result. A second process waits for the first."""
    _need_compiler()
    target = built_dir(pin, cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(cache_dir / f".{target.name}.lock"):
        if target.is_dir():
            return target
        for left_over in cache_dir.glob(".building-*"):  # of a build that was killed: only the lock's holder builds
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".building-") as work:
            archive = download(pin, Path(work), cache_dir)
            source = unpack(archive, Path(work) / "source")
            _keep(source, compile_tools(source, Path(work) / "build", cache_dir), Path(work) / "kept")
            (Path(work) / "kept").replace(target)
    return target


@contextmanager
def _only_one(lock_path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel lets go of it when that process ends, however it ends."""
    with lock_path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("build-llama: another process builds llama.cpp, waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def download(pin: Pin, folder: Path, log_dir: Path) -> Path:
    """The source archive, through pip and whatever index it is set to, its hash checked by pip and again here."""
    print(f"build-llama: downloading llama.cpp ({PACKAGE} {pin.version}, 77 MB)", file=sys.stderr, flush=True)
    requirements = folder / "requirements.txt"
    hashes = " ".join(f"--hash=sha256:{value}" for value in pin.hashes)
    requirements.write_text(f"{PACKAGE}=={pin.version} {hashes}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
    command += ["--progress-bar", "off", "--requirement", str(requirements), "--dest", str(folder)]
    # pip asks the package's build backend for its metadata. Where the environment has that backend, pip need not
    # fetch another, unpinned one.
    if importlib.util.find_spec("scikit_build_core"):
        command.append("--no-build-isolation")
    run_tool(command, log_dir / "download.log", "download of llama.cpp")
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1 or file_hash(archives[0]) not in pin.hashes:
        raise LabError(
            f"what pip downloaded is not the {PACKAGE} {pin.version} that Pipfile.lock pins", mend="try again"
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack llama.cpp's tree and return its folder; nothing can land outside `folder`."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, [entry for entry in tar if "/vendor/llama.cpp/" in entry.name], filter="data")
    found = list(folder.glob("*/vendor/llama.cpp/CMakeLists.txt"))
    if not found:
        raise LabError("holds no vendor/llama.cpp", where=archive.name, mend="pin another version in the Pipfile")
    return found[0].parent


def compile_tools(source: Path, build_dir: Path, log_dir: Path) -> Path:
    """Compile at low priority and return the folder of the binaries."""
    cmake = _program("cmake")
    if cmake is None:
        raise LabError("cmake is missing", mend="`make setup` installs it, or: apt-get install cmake")
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    configure = [cmake, "-S", str(source), "-B", str(build_dir), "-G", "Unix Makefiles", *options]
    run_tool(configure, log_dir / "configure.log", "cmake")
    apart = ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL"]  # of a `make` that started us
    jobs = str(os.cpu_count() or 1)
    command = [*apart, "nice", "-n", "19", cmake, "--build", str(build_dir), "--parallel", jobs, "--target", *TARGETS]
    run_tool(command, log_dir / "build.log", "building llama.cpp")
    return build_dir / "bin"


def _keep(source: Path, binaries: Path, kept: Path) -> None:
    """Of 500 MB of source and build the few that are used, and llama.cpp's licence."""
    (kept / "bin").mkdir(parents=True)
    for name in TARGETS:
        shutil.copy2(binaries / name, kept / "bin")
    for name in KEPT:
        (source / name).rename(kept / name)


def _program(name: str) -> str | None:
    """A program of this Python's environment (cmake comes from PyPI), else of the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _need_compiler() -> None:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise LabError("no C++ compiler, which llama.cpp needs", mend="apt-get install build-essential")
