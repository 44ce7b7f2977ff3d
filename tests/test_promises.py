"""House rules, kept by reading the code, the Makefile and the README."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import ROOT

LAB = ROOT / "lab"
MODULES = sorted(path for path in LAB.rglob("*.py") if "__pycache__" not in path.parts)
STAGES = {"extract", "format", "check", "pretrain", "train", "evaluate", "export", "serve", "report"}
# Each may import those before its own row; stages and the rows of the top are held to their own rules below.
ROWS = [
    {"errors"},
    {"config", "records", "progress"},
    {"store"},
    {"tokens", "endpoint", "models"},
    STAGES,
    {"cli", "demo", "doctor", "reference", "variables"},
    {"__main__", "check_data", "train_lora"},
]
RANK = {name: rank for rank, names in enumerate(ROWS) for name in names}
# The demo passes its own environment on to the processes that it starts.
READS_ENVIRONMENT = {"config.py", "demo.py"}
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 350, 60


def name_of(path: Path) -> str:
    """`lab/check/show.py` -> `check`, `lab/store.py` -> `store`."""
    first = path.relative_to(LAB).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Names right below `lab` that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("lab."))


def relative(path: Path) -> str:
    return path.relative_to(LAB).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    if path == LAB / "__init__.py":
        assert not list(imported(path))
        return
    own = name_of(path)
    for name in set(imported(path)) - {own, "__version__"}:
        if own in STAGES:
            assert name not in STAGES, f"stage {own} imports stage {name}"
        same_row = own in ROWS[-2] | {"models"} and RANK[name] == RANK[own]
        assert RANK[name] < RANK[own] or same_row, f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_the_configuration_reads_the_environment(path: Path) -> None:
    read = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
        or (isinstance(node, ast.alias) and node.name in {"environ", "getenv"})
    ]
    assert not read or relative(path) in READS_ENVIRONMENT


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_and_functions_stay_short_enough_to_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def modules_after(statement: str, tmp_path: Path) -> set[str]:
    """Names of the top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["lab.cli", "lab.config", "lab.extract", "lab.format", "lab.check", "lab.train"])
def test_a_light_module_imports_no_heavy_library(module: str, tmp_path: Path) -> None:
    heavy = {"torch", "transformers", "rich", "openai", "datasets", "peft", "trl", "numpy"}
    assert not heavy & modules_after(f"import {module}", tmp_path)


def test_the_help_of_lab_needs_not_even_pydantic(tmp_path: Path) -> None:
    loaded = modules_after("from lab import cli; cli.main(['--help'])", tmp_path)
    assert not {"pydantic", "pydantic_settings", "torch", "transformers"} & loaded


def test_data_commands_never_import_torch(tokenizer_volume: Path, tmp_path: Path) -> None:
    shutil.copytree(tokenizer_volume, tmp_path / "data")
    for command in ("extract", "format", "check-data"):
        loaded = modules_after(
            f"from lab import cli; assert cli.main(['{command}', '--log-level=ERROR']) == 0", tmp_path
        )
        assert "torch" not in loaded, command
    assert "transformers" in loaded  # check-data did load the tokenizer
    assert (tmp_path / "data" / "dataset" / "train.jsonl").exists()


# --- Makefile and README


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout


def targets() -> dict[str, str]:
    """Targets of the Makefile that have a sentence."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([a-z-]+):.*?## (.+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def test_bare_make_lists_every_target_with_its_sentence() -> None:
    index = make()
    for name, sentence in targets().items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}$", index, re.MULTILINE), name


def test_every_phony_target_for_people_has_a_sentence() -> None:
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(targets()) <= phony
    assert phony - set(targets()) <= {"preflight"}


def test_every_command_of_a_target_exists() -> None:
    from lab.cli import COMMANDS

    called = re.findall(r"\$\(LAB\) ([a-z-]+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert called
    assert set(called) <= set(COMMANDS)


@pytest.fixture(scope="module")
def readme() -> str:
    path = ROOT / "README.md"
    if not path.exists():
        pytest.skip("there is no README.md yet")
    return path.read_text(encoding="utf-8")


def test_the_readmes_make_commands_exist(readme: str) -> None:
    lines = re.findall(r"(?:`|^\$? *)make ([^`#\n]+)", readme, re.MULTILINE)
    named = {word for line in lines for word in line.split() if re.fullmatch(r"[a-z-]+", word)}
    assert {"demo", "test"} <= named
    assert named <= set(targets())


def test_the_files_that_the_readme_links_and_maps_exist(readme: str) -> None:
    names = re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)
    for block in re.findall(r"^```\n(Makefile .*?)^```", readme, re.DOTALL | re.MULTILINE):
        above = ""
        for line in block.splitlines():
            words = re.split(r" {2,}", line.strip())[0].replace(",", " ").split()
            entries = [word for word in words if re.search(r"[./]|^(Make|Pip)file$|^LICENSE$", word)]
            folder = above if line.startswith(" ") else ""
            names += [folder + entry for entry in entries]
            above = folder or (entries[0] if entries and entries[0].endswith("/") else "")
    assert "lab/check_data.py" in names
    for name in names:
        assert (ROOT / name).exists(), name


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        text=True,
        check=False,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.stat().st_size < 1_000_000]


def test_no_tracked_file_names_a_machine_of_ours() -> None:
    host = "|".join(["art" + "ifactory", "nex" + "us", "dev" + "pi", "pypi-" + "proxy"])
    parts = [("wo", "rk/[a-z]+"), ("ho", "me/[a-z]+"), ("Us", "ers/[a-z]+")]
    folder = "|".join(f"/{first}{rest}/" for first, rest in parts)
    forbidden = re.compile(rf"https?://[^/\s]*({host})[^/\s]*|(?<![\w.~])({folder})")
    for path in tracked_files():
        found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_lock_names_no_index_so_that_the_machine_s_own_serves() -> None:
    lock = json.loads((ROOT / "Pipfile.lock").read_text(encoding="utf-8"))
    assert lock["_meta"]["sources"] == []
    assert "[[source]]" not in [line.strip() for line in (ROOT / "Pipfile").read_text().splitlines()]


def test_the_lock_installs_no_cuda_package_where_there_is_no_gpu() -> None:
    lock = json.loads((ROOT / "Pipfile.lock").read_text(encoding="utf-8"))
    assert lock["trainer-cpu"]["torch"]["version"].endswith("+cpu")
    for category in lock.keys() - {"_meta", "trainer-cuda"}:
        assert not [name for name in lock[category] if name.startswith(("nvidia-", "triton", "cuda-"))]


def test_every_stage_folder_has_tests() -> None:
    folders = {path.name for path in LAB.iterdir() if (path / "__init__.py").exists()}
    assert folders == STAGES
