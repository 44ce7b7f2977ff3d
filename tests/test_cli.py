from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, config, variables
from tests import world

ANSWERING = sorted(cli.COMMANDS)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# --- help


def test_help_lists_every_command_and_bare_lab_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", overview, re.MULTILINE)
    assert cli.main([]) == 2
    assert capsys.readouterr().out == overview


@pytest.mark.parametrize("name", ANSWERING)
def test_help_of_a_command_shows_each_flag_with_variable_sentence_and_default(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit) as left:
        cli.parse_flags(name, ["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: lab {name} ")
    places = [["log_level"], ["force"]]
    places += [[group, field] for group in cli.COMMANDS[name].groups for field in config.groups()[group].model_fields]
    for place in places:
        field = variables.known_variables()[config.variable_name(place)]
        assert f"{config.flag_name(place)}" in shown
        assert config.variable_name(place) in shown
        assert " ".join((field.description or "").split()) in " ".join(shown.split())
    assert "default: " in shown


def test_help_is_answered_before_settings_are_checked(tmp_path: Path) -> None:
    done = world.run_lab("train", "--help", cwd=tmp_path, LLM_LORA__R="many")
    assert done.returncode == 0
    assert "--lora.r" in done.stdout


# --- flags


def test_a_flag_is_a_view_of_a_setting() -> None:
    flags = ["--lora.lora-alpha", "8", "--no-training.bf16", "--data.train-files=a,b", "--log-level=DEBUG"]
    settings = config.load(cli.parse_flags("train", flags))
    assert settings.lora.lora_alpha == 8
    assert settings.training.bf16 is False
    assert settings.data.train_files == ["a", "b"]
    assert settings.log_level == "DEBUG"
    assert settings.lora.r == 32


def test_the_seeds_short_flags_work() -> None:
    given = cli.parse_flags(
        "check-data", ["--num-examples=3", "--stats", "--pattern=agent-session-*.jsonl", "--no-catalog"]
    )
    settings = config.load(given)
    assert settings.check.num_examples == 3
    assert settings.check.stats is True
    assert settings.data.train_files == ["agent-session-*.jsonl"]
    assert settings.data.inject_tool_catalog is False
    assert settings.data.inject_tool_preamble is True


def test_flags_and_environment_give_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    by_flag = config.load(cli.parse_flags("train", ["--training.num-train-epochs", "1", "--force"]))
    monkeypatch.setenv("LLM_TRAINING__NUM_TRAIN_EPOCHS", "1")
    monkeypatch.setenv("LLM_FORCE", "true")
    assert config.load(cli.parse_flags("train", [])) == by_flag


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "error: 'trian' is not a stage, did you mean train?"),
        (["zzz"], "error: 'zzz' is not a stage; `lab --help` lists them"),
        (
            ["train", "--lora.rr=3"],
            "error: lab train: --lora.rr is not a flag, did you mean --lora.r?; `lab train --help`",
        ),
        (["train", "extra"], "error: lab train: extra is not a flag; `lab train --help` lists the flags"),
        (["train", "--lora.r"], "error: lab train: argument --lora.r: expected one argument; `lab train --help`"),
        (["train", "--lora.r=many"], "error: LLM_LORA__R (flag --lora.r) = 'many': input should be a valid integer"),
        (["extract", "--serve.port=1"], "error: lab extract: --serve.port is not a flag"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(said)
    assert printed.err.count("\n") == 1


# --- exit codes


def test_a_stage_that_works_ends_with_0_and_a_summary_line(volume: Path, tmp_path: Path) -> None:
    done = world.run_lab("extract", cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(
        r"extract: 59 in, 56 out, 3 rejected \(empty_output 1, unparseable_input 2\) in \d+\.\d s; 14 files\n",
        done.stdout,
    )
    assert world.run_lab("extract", cwd=tmp_path).stdout == "extract: up to date (14 files)\n"


def test_a_missing_input_ends_with_1_and_the_command_that_writes_it(tmp_path: Path) -> None:
    done = world.run_lab("format", cwd=tmp_path)
    assert done.returncode == 1
    where = "data/raw/sessions/observations.jsonl"
    assert done.stderr == f"error: {where}: not there yet; `make extract` writes it\n"


def test_a_bad_variable_ends_with_2(tmp_path: Path) -> None:
    done = world.run_lab("extract", cwd=tmp_path, LLM_DATA__MAX_LENGTH="-1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: LLM_DATA__MAX_LENGTH (flag --data.max-length) = '-1': ")
    assert done.stderr.count("\n") == 1


def test_an_unknown_variable_is_warned_about_and_the_stage_goes_on(volume: Path, tmp_path: Path) -> None:
    done = world.run_lab("extract", cwd=tmp_path, LLM_DATA__TRAIN_FILE="x")
    assert done.returncode == 0
    assert done.stderr == "lab: LLM_DATA__TRAIN_FILE is not a setting; did you mean LLM_DATA__TRAIN_FILES?\n"


def test_a_settings_file_is_read_from_the_working_directory(volume: Path, tmp_path: Path) -> None:
    volume.rename(tmp_path / "elsewhere")
    (tmp_path / "mine.env").write_text("LLM_DATA__DATA_DIR=elsewhere\n")
    assert world.run_lab("extract", cwd=tmp_path, LLM_ENV_FILE="mine.env").returncode == 0
    assert (tmp_path / "elsewhere" / "raw").exists()


@pytest.mark.usefixtures("torch_stays_visible")
def test_the_data_stages_run_in_this_process_too(
    volume: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    place = f"--data.data-dir={volume}"
    assert cli.main(["extract", place, "--pattern=agent-session-00*.jsonl"]) == 0
    assert cli.main(["format", place, "--no-catalog"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("extract: 43 in, 40 out, 3 rejected")
    assert said[1].startswith("format: 40 in, 10 out, 0 rejected")
    assert "taking the sample sessions" in caplog.text


# --- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_stage_leaves_nothing_half_written(volume: Path, tmp_path: Path, number: int, code: int) -> None:
    sessions = volume / "samples" / "sessions"
    for copy in range(40):
        log = sessions / f"agent-session-big-{copy}.jsonl"
        log.write_text("".join(f"{line}\n" for line in world.session_lines(copy)) * 1000, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "extract"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    raw = volume / "raw" / "sessions"
    while not list(raw.glob(".observations.jsonl.*.partial")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert (out, err) == ("", "\nextract: stopped, nothing half-written; `make extract` goes on\n")
    assert list(raw.iterdir()) == []


# --- the seeds' scripts


@pytest.fixture
def project(tokenizer_volume: Path, tmp_path: Path) -> Path:
    """A working directory whose `data` holds the samples and nothing that a stage wrote."""
    shutil.copytree(tokenizer_volume / "samples", tmp_path / "data" / "samples")
    shutil.copy(tokenizer_volume / "tool_catalogue.json", tmp_path / "data")
    return tmp_path


def test_check_data_by_its_file_runs_the_stages_before_it(project: Path) -> None:
    script = str(world.ROOT / "lab" / "check_data.py")
    done = world.run_lab(script, "--num-examples=3", "--stats", cwd=project, COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    stages = [line.split(":")[0] for line in done.stdout.splitlines() if re.match(r"[a-z-]+: \d+ in", line)]
    assert stages == ["extract", "format", "pretrain", "check-data"]
    assert len(re.findall(r"example \d+:", done.stdout)) == 3
    assert "What will be learned" in done.stdout
    again = world.run_lab(script, "--pattern=agent-session-*.jsonl", "--no-catalog", "--no-stats", cwd=project)
    assert again.returncode == 0
    assert "no file agent-session-*.jsonl in data: taking the sample sessions" in again.stderr


@pytest.mark.parametrize("script", ["check_data.py", "train_lora.py"])
def test_the_scripts_have_the_help_of_their_command(script: str, tmp_path: Path) -> None:
    done = world.run_lab(str(world.ROOT / "lab" / script), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--log-level" in done.stdout
    assert "LLM_DATA__TRAIN_FILES" in done.stdout


def test_the_scripts_take_the_log_level(tmp_path: Path) -> None:
    done = world.run_lab(str(world.ROOT / "lab" / "train_lora.py"), "--log-level", "DEBUG", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: data: no file matches")
