"""Where llama.cpp's tools come from. The build is real, of a source package that compiles in a second."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from itertools import islice
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.export import llama_cpp, llama_cpp_build, tool
from lab.export.llama_cpp_build import Pin
from tests.tiny_run import settings_of

PROGRAMS = ("llama-quantize", "llama-tokenize", "convert_hf_to_gguf.py")

BACKEND = """
import os
import signal
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    name = "llama_cpp_python-9.9.9.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: llama_cpp_python\\nVersion: 9.9.9\\n")
    return name
"""
SOURCE = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 9.9.9\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "llama_cpp_python"\nversion = "9.9.9"\n',
    "backend.py": BACKEND,
    "vendor/llama.cpp/CMakeLists.txt": "cmake_minimum_required(VERSION 3.14)\nproject(x CXX)\n"
    "set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)\n"
    "add_executable(llama-quantize main.cpp)\nadd_executable(llama-tokenize main.cpp)\n",
    "vendor/llama.cpp/main.cpp": "int main() { return 0; }\n",
    "vendor/llama.cpp/LICENSE": "MIT License\n",
    "vendor/llama.cpp/convert_hf_to_gguf.py": "",
    "vendor/llama.cpp/conversion/base.py": "",
    "vendor/llama.cpp/gguf-py/gguf/vocab.py": "",
}


def make_package(folder: Path, files: dict[str, str]) -> Pin:
    folder.mkdir()
    path = folder / "llama_cpp_python-9.9.9.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"llama_cpp_python-9.9.9/{name}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return Pin("9.9.9", (hashlib.sha256(path.read_bytes()).hexdigest(),))


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """A pinned source package in the only place where pip looks."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return make_package(tmp_path / "index", SOURCE)


def make_programs(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\necho 'version: 1 (abc)'\n")
        (folder / name).chmod(0o755)


def test_a_folder_that_is_set_comes_first(tmp_path: Path) -> None:
    make_programs(tmp_path / "build" / "bin", *PROGRAMS[:2])
    make_programs(tmp_path, PROGRAMS[2])
    tools = llama_cpp.locate(settings_of(tmp_path, export={"llama_cpp_dir": tmp_path}))
    assert tools.quantize == tmp_path / "build" / "bin" / "llama-quantize"
    assert (tools.version, tools.origin) == ("llama.cpp version: 1 (abc)", str(tmp_path))


@pytest.mark.parametrize("missing", PROGRAMS)
def test_a_piece_that_is_missing_in_that_folder_is_named(tmp_path: Path, missing: str) -> None:
    make_programs(tmp_path, *(name for name in PROGRAMS if name != missing))
    with pytest.raises(LabError, match=f"LLM_EXPORT__LLAMA_CPP_DIR: {missing} is not in"):
        llama_cpp.find(settings_of(tmp_path, export={"llama_cpp_dir": tmp_path}))


def test_then_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_programs(tmp_path / "bin", *PROGRAMS)
    monkeypatch.delenv("LLM_EXPORT__LLAMA_CPP_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    outcome = llama_cpp.run_build(settings_of(tmp_path))
    assert outcome.up_to_date
    assert outcome.note.endswith("on the PATH")


def test_then_the_build_of_an_earlier_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_EXPORT__LLAMA_CPP_DIR", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    settings = settings_of(tmp_path, export={"cache_dir": tmp_path / "cache"})
    assert llama_cpp.find(settings) is None
    folder = llama_cpp_build.built_dir(llama_cpp_build.read_pin(), tmp_path / "cache")
    make_programs(folder / "bin", *PROGRAMS[:2])
    tools = llama_cpp.locate(settings)
    assert tools.quantize == folder / "bin" / "llama-quantize"


def test_the_repository_pins_one_source_package() -> None:
    pin = llama_cpp_build.read_pin()
    assert pin.version[0].isdigit()
    assert [len(value) for value in pin.hashes] == [64]


def test_a_lock_without_the_category_says_what_writes_it(tmp_path: Path) -> None:
    (tmp_path / "Pipfile.lock").write_text(json.dumps({"default": {}}))
    with pytest.raises(LabError, match="category llama-cpp; `make lock`"):
        llama_cpp_build.read_pin(tmp_path / "Pipfile.lock")


@pytest.mark.llama_cpp
def test_a_build_keeps_the_tools_the_converter_and_the_licence(tmp_path: Path, pin: Pin) -> None:
    (tmp_path / "cache" / ".building-killed").mkdir(parents=True)
    folder = llama_cpp_build.build(pin, tmp_path / "cache")
    assert folder == llama_cpp_build.built_dir(pin, tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["bin", *llama_cpp_build.KEPT])
    assert subprocess.run([folder / "bin" / "llama-quantize"]).returncode == 0
    assert [path.name for path in (tmp_path / "cache").glob(".building*")] == []
    assert llama_cpp_build.build(pin, tmp_path / "cache") == folder


@pytest.mark.llama_cpp
def test_two_processes_build_once(tmp_path: Path, pin: Pin) -> None:
    code = (
        "import sys; from pathlib import Path; from lab.export.llama_cpp_build import Pin, build\n"
        "build(Pin(sys.argv[1], (sys.argv[2],)), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, pin.version, pin.hashes[0], str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted("downloading" in text for text in said) == [False, True], said


@pytest.mark.llama_cpp
def test_a_package_of_another_hash_is_never_unpacked(tmp_path: Path, pin: Pin) -> None:
    with pytest.raises(LabError, match=r"download of llama.cpp: failed.*download.log"):
        llama_cpp_build.build(Pin(pin.version, ("0" * 64,)), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("llama.cpp-*"))


@pytest.mark.llama_cpp
def test_a_build_that_fails_leaves_its_log_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    broken = make_package(
        tmp_path / "index", {**SOURCE, "vendor/llama.cpp/main.cpp": "int main() { return nothing; }\n"}
    )
    with pytest.raises(LabError, match=r"building llama.cpp: failed.*nothing.*build.log"):
        llama_cpp_build.build(broken, tmp_path / "cache")
    names = {path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")}
    assert names == {"download.log", "configure.log", "build.log"}


def test_a_package_without_llama_cpp_is_refused(tmp_path: Path) -> None:
    make_package(tmp_path / "index", {"README.md": ""})
    with pytest.raises(LabError, match=r"holds no vendor/llama.cpp"):
        llama_cpp_build.unpack(next((tmp_path / "index").iterdir()), tmp_path / "source")


def test_no_compiler_is_said_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match=r"no C\+\+ compiler.*apt-get install build-essential"):
        llama_cpp_build.build(Pin("9.9.9", ("0" * 64,)), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[12/300] Building CXX object", (12, 300)),
        ("[   1/  30] token_embd.weight", (1, 30)),
        ("[ 12%] Building CXX object", (12, 100)),
        ("Writing:  45%|####", (45, 100)),
        ("loading", None),
    ],
)
def test_progress_is_read_from_the_tools_own_lines(line: str, expected: tuple[int, int] | None) -> None:
    assert tool.position(line) == expected


def test_a_tool_that_fails_says_its_last_error(tmp_path: Path) -> None:
    script = "echo 'main: error: no such type'; echo '[1/2] x'; echo bye; exit 3"
    with pytest.raises(
        LabError, match=r"quantize: failed with exit code 3: main: error: no such type; .*q.log"
    ) as caught:
        tool.run_tool(["sh", "-c", script], tmp_path / "logs" / "q.log", "quantize")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "logs" / "q.log").read_text() == "main: error: no such type\n[1/2] x\nbye\n"


def test_a_silent_failure_says_that(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="it said nothing"):
        tool.run_tool(["false"], tmp_path / "log", "x")


def test_ctrl_c_ends_the_tool_and_its_children(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    script = f"sleep 60 & echo $! > {tmp_path}/pid; sleep 0.5; kill -INT $PPID; wait"  # PPID is this process
    with pytest.raises(KeyboardInterrupt):
        tool.run_tool(["sh", "-c", script], tmp_path / "log", "x")
    child = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    gone = (not child.exists() or child.read_text().split()[2] == "Z" for _ in iter(lambda: time.sleep(0.05), 0))
    assert any(islice(gone, 200))  # the signal was sent; the kernel delivers it when the child runs next
