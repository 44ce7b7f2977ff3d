from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from lab import store
from lab.errors import LabError
from lab.records import Chat, Reject
from lab.store import Outcome, Rejects, Step, atomic_dir, atomic_file, current, finish, read_jsonl, write_jsonl
from tests import world


class Interrupted(Exception):
    pass


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- atomic writers


def test_a_file_appears_only_when_its_block_ended_well(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as file:
        file.write("one\r\ntwo\n")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"one\r\ntwo\n"
    assert files_below(tmp_path) == ["deep", "deep/a.txt"]


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, SystemExit])
def test_a_file_stays_as_it_was_when_its_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_file(path, "wb") as file:
            file.write(b"new, but only ha")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert files_below(tmp_path) == ["a.bin"]


def test_a_folder_appears_whole_and_replaces_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "stale.txt").touch()
    with atomic_dir(path) as folder:
        (folder / "new.txt").touch()
        assert files_below(path) == ["stale.txt"]
    assert files_below(tmp_path) == ["model", "model/new.txt"]


def test_a_folder_stays_as_it_was_when_its_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").touch()

    def fail_half_way() -> None:
        with atomic_dir(path) as folder:
            (folder / "half.txt").touch()
            raise Interrupted

    with pytest.raises(Interrupted):
        fail_half_way()
    assert files_below(tmp_path) == ["model", "model/old.txt"]


def test_records_that_fail_on_the_way_leave_no_file(tmp_path: Path) -> None:
    def records() -> object:
        yield world.chat(world.says("x"))
        raise Interrupted

    with pytest.raises(Interrupted):
        write_jsonl(tmp_path / "chats.jsonl", records())  # type: ignore[arg-type]
    assert files_below(tmp_path) == []


# --- readers


def test_a_record_that_does_not_fit_is_named_with_file_and_line(tmp_path: Path) -> None:
    good = store.to_line(world.chat(world.says("x"))).strip()
    path = world.write_lines(tmp_path / "chats.jsonl", [good, "", '{"id": "secret customer text"}'])
    with pytest.raises(LabError) as caught:
        list(read_jsonl(path, Chat))
    assert str(caught.value) == f"{path}:3: messages: Field required; the stage that wrote it must run again"


@pytest.mark.parametrize("line", [b"{broken", b'{"id": "\xff\xfe"}', b"[]"])
def test_a_line_that_is_no_record_at_all_is_named_too(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(LabError, match=r"x\.jsonl:2: "):
        list(read_jsonl(path, Chat))


def test_only_a_line_feed_ends_a_record(tmp_path: Path) -> None:
    chat = world.chat(world.user("a\u2028b\u2029c\x85d\x0ce\r\nf"), world.says("g\r"))
    write_jsonl(tmp_path / "x.jsonl", [chat, chat])
    assert "\u2028".encode() in (tmp_path / "x.jsonl").read_bytes()
    assert list(read_jsonl(tmp_path / "x.jsonl", Chat)) == [chat, chat]
    assert store.count_lines(tmp_path / "x.jsonl") == 2


def test_a_missing_input_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"chats.jsonl: not there yet; `make format` writes it$"):
        store.need(tmp_path / "chats.jsonl", "format")
    assert store.need(tmp_path, "format") == tmp_path


def test_json_for_people_is_indented_and_keeps_its_letters(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", {"city": "Malmö"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "city": "Malmö"\n}\n'
    assert store.read_json(tmp_path / "x.json") == {"city": "Malmö"}


def test_a_json_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff{")
    with pytest.raises(LabError, match=r"x\.json: not JSON"):
        store.read_json(tmp_path / "x.json")


# --- rejects


def test_rejects_are_kept_with_their_reason_and_counted(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "rejects.jsonl")
    for line, reason in enumerate(["b", "a", "b"], start=1):
        rejects.add(reason, "why", file=Path("log.jsonl"), line=line, record_id=None if line == 1 else "r")
    assert rejects.write() == 3
    assert rejects.by_reason() == {"a": 1, "b": 2}
    kept = list(read_jsonl_rejects(tmp_path / "rejects.jsonl"))
    assert [(reject["reason"], reject["line"]) for reject in kept] == [("b", 1), ("a", 2), ("b", 3)]


def read_jsonl_rejects(path: Path) -> list[dict[str, object]]:
    return [json.loads(text) for _, text in store.numbered_lines(path)]


def test_no_rejects_are_a_file_without_lines(tmp_path: Path) -> None:
    assert Rejects(tmp_path / "rejects.jsonl").write() == 0
    assert (tmp_path / "rejects.jsonl").read_bytes() == b""


def test_a_reject_without_an_id_can_be_read_again(tmp_path: Path) -> None:
    rejects = Rejects(tmp_path / "rejects.jsonl")
    rejects.add("reason", "why", file=Path("log.jsonl"), line=1)
    rejects.write()
    assert list(read_jsonl(tmp_path / "rejects.jsonl", Reject)) == rejects.rejects


# --- manifests


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A stage that ran: one input, one output file, one output folder."""
    (tmp_path / "in.txt").write_text("input")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out.txt").write_text("output")
    (tmp_path / "out" / "deep" / "weights").write_text("weights")
    made = Step("format", tmp_path / "manifest.json", [tmp_path / "in.txt"], {"size": 1}, ("format",))
    outcome = Outcome("format", 5, 3, 2, {"empty": 2}, outputs=[tmp_path / "out.txt", tmp_path / "out"], note="folded")
    finish(made, outcome, time.time() - 1.5)
    return made


def test_a_finished_step_is_up_to_date_with_its_own_counts(step: Step, tmp_path: Path) -> None:
    outcome = current(step)
    assert outcome is not None
    assert outcome.up_to_date
    assert (outcome.num_in, outcome.num_out, outcome.num_rejected, outcome.reasons) == (5, 3, 2, {"empty": 2})
    assert outcome.seconds >= 1.5
    assert outcome.outputs == [tmp_path / "out.txt", tmp_path / "out" / "deep" / "weights"]
    assert outcome.summary() == "format: up to date (folded)"


def test_a_step_that_never_ran_is_not_up_to_date(step: Step, tmp_path: Path) -> None:
    step.manifest_path.unlink()
    assert current(step) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stage": "format"}'])
def test_a_manifest_of_another_kind_means_run_again(step: Step, content: str) -> None:
    step.manifest_path.write_text(content)
    assert current(step) is None


def test_a_changed_input_makes_the_output_stale(step: Step, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("inpuT")
    assert current(step) is None


def test_a_longer_input_makes_the_output_stale(step: Step, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("input and more")
    assert current(step) is None


def test_a_touched_input_with_the_same_content_is_still_the_same(step: Step, tmp_path: Path) -> None:
    os.utime(tmp_path / "in.txt", (1, 1))
    assert current(step) is not None


@pytest.mark.parametrize("name", ["out.txt", "out/deep/weights"])
def test_a_deleted_output_makes_the_step_run_again(step: Step, tmp_path: Path, name: str) -> None:
    (tmp_path / name).unlink()
    assert current(step) is None


def test_a_spoiled_output_makes_the_step_run_again(step: Step, tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("0utput")
    assert current(step) is None


def test_a_missing_input_makes_the_step_run_again(step: Step, tmp_path: Path) -> None:
    (tmp_path / "in.txt").unlink()
    assert current(step) is None


def test_another_setting_stage_or_set_of_inputs_makes_it_stale(step: Step, tmp_path: Path) -> None:
    (tmp_path / "more.txt").touch()
    inputs = [*step.inputs, tmp_path / "more.txt"]
    path, code = step.manifest_path, step.code
    assert current(Step("format", path, step.inputs, {"size": 2}, code)) is None
    assert current(Step("check", path, step.inputs, {"size": 1}, code)) is None
    assert current(Step("format", path, inputs, {"size": 1}, code)) is None
    assert current(Step("format", path, step.inputs, {"size": 1}, code)) is not None


def test_other_code_makes_it_stale(step: Step) -> None:
    other = Step("format", step.manifest_path, step.inputs, step.settings, ("format", "tokens.py"))
    assert current(other) is None
    assert store.code_hash(("format",)) != store.code_hash(("extract",))
    assert store.code_hash(("tokens.py", "format")) == store.code_hash(("format", "tokens.py"))


def test_a_volume_that_was_moved_as_a_whole_is_not_mistaken_for_the_old_one(step: Step, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy2(tmp_path / "in.txt", copy)
    assert current(Step("format", step.manifest_path, [copy / "in.txt"], step.settings, step.code)) is None


def test_the_manifest_tells_where_the_output_comes_from(step: Step, tmp_path: Path) -> None:
    manifest = store.read_json(step.manifest_path)
    seen = manifest["inputs"][str(tmp_path / "in.txt")]
    assert seen["sha256"] == "c96c6d5be8d08a12e7b5cdc1b207fa6b2430974c86803d8891675e76fd992c20"
    assert seen["size"] == 5
    assert manifest["packages"]["pydantic"]
    assert manifest["counts"]["num_rejected"] == 2
    assert manifest["time"].endswith("+00:00")
    assert {"commit", "python", "host", "seconds"} <= set(manifest)


def test_secrets_are_masked_in_the_manifest(tmp_path: Path) -> None:
    class Keys(BaseModel):
        key: SecretStr = SecretStr("sk-hidden")
        path: Path = Path("a/b")

    settings = {"keys": Keys(), "list": [SecretStr("sk-hidden"), 1], "token": SecretStr("sk-hidden")}
    finish(Step("x", tmp_path / "m.json", [], settings), Outcome("x"), time.time())
    assert "sk-hidden" not in (tmp_path / "m.json").read_text()
    assert store.read_json(tmp_path / "m.json")["settings"]["keys"] == {"key": "**********", "path": "a/b"}


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome("format", 604, 600, 4, {"empty_output": 3, "other": 1}, 0.34, note="14 files"),
            "format: 604 in, 600 out, 4 rejected (empty_output 3, other 1) in 0.3 s; 14 files",
        ),
        (Outcome("train", 2, 2, seconds=61.0), "train: 2 in, 2 out, 0 rejected in 61.0 s"),
        (Outcome("train", up_to_date=True), "train: up to date"),
    ],
)
def test_the_summary_is_one_line(outcome: Outcome, line: str) -> None:
    assert outcome.summary() == line


def test_the_commit_of_the_code_is_known_inside_a_repository() -> None:
    commit = store.git_commit()
    assert commit is None or len(commit.rstrip("+")) == 40
