from __future__ import annotations

import platform
from pathlib import Path

import pytest

from lab import config, doctor, variables
from tests import world
from tests.loopback import as_json, loopback


def findings(settings: config.Settings) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(settings)}


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return world.settings_on(
        tmp_path, serve={"ollama_host": "http://127.0.0.1:9"}, export={"cache_dir": tmp_path / "cache"}
    )


def test_everything_that_decides_what_works_is_named(settings: config.Settings) -> None:
    found = findings(settings)
    assert found["Python"].found == platform.python_version()
    assert {"processor", "disk", "NVIDIA GPU", "PyTorch", "Docker engine", "C++ compiler", "llama.cpp"} <= set(found)
    assert {"Ollama", "embedded server", *variables.VENDOR_VARIABLES} <= set(found)


def test_what_is_missing_says_what_it_switches_off(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = findings(settings)
    for name in ("NVIDIA GPU", "Docker engine", "C++ compiler", "llama.cpp", "Ollama"):
        assert found[name].found.startswith("none"), name
        assert found[name].without_it, name


def test_a_server_that_answers_is_ollama(tmp_path: Path) -> None:
    with loopback(lambda _: as_json({"version": "0.9.9"})) as server:
        host = server.url.removesuffix("/v1")
        found = doctor.ollama(world.settings_on(tmp_path, serve={"ollama_host": host}))
    assert found == doctor.Finding("Ollama", f"0.9.9 at {host}")


def test_llama_cpp_is_found_by_setting_path_or_cache(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "cache" / "llama.cpp-1").mkdir(parents=True)
    assert doctor.llama_cpp(settings).found == str(tmp_path / "cache" / "llama.cpp-1")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "llama-quantize"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert doctor.llama_cpp(settings).found == str(program)
    chosen = world.settings_on(tmp_path, export={"llama_cpp_dir": tmp_path})
    assert doctor.llama_cpp(chosen).found == f"LLM_EXPORT__LLAMA_CPP_DIR = {tmp_path}"


def test_keys_are_named_and_never_shown(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    doctor.run(settings)
    shown = capsys.readouterr().out
    assert "sk-hidden" not in shown
    [line] = [line for line in shown.splitlines() if "OPENAI_API_KEY" in line]
    assert "│ set " in line
    [line] = [line for line in shown.splitlines() if "HF_TOKEN" in line]
    assert "not set" in line
    assert variables.VENDOR_VARIABLES["HF_TOKEN"] in line


def test_the_first_line_of_a_program_is_its_answer(tmp_path: Path) -> None:
    assert doctor.first_line("printf", "one\ntwo\n") == "one"
    assert doctor.first_line("printf", "") == ""
    assert doctor.first_line("false") == ""
    assert doctor.first_line(str(tmp_path / "no-such-program")) == ""
