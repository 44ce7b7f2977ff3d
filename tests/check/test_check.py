"""What needs no tokenizer of Transformers runs here; the stage itself runs as its users run it, in a process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import check, extract
from lab import format as folding
from lab.config import Settings
from lab.errors import LabError
from lab.records import Chat, Reject
from lab.store import read_jsonl
from lab.tokens import Tokenized, UntrainableError
from tests import world

groups = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


def chats_of(names: list[str], split: str | None = None) -> list[Chat]:
    chats = [world.chat(world.user("a"), world.says("b"), group=name, name=str(i)) for i, name in enumerate(names)]
    for chat in chats:
        chat.origin.split = split  # type: ignore[assignment]
    return chats


def both_sides() -> list[Chat]:
    """Two conversations of sessions that the user put on one side each."""
    return chats_of(["chosen for train"], "train") + chats_of(["chosen for eval"], "eval")


@given(names=groups, fraction=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_no_session_stands_on_both_sides(names: list[str], fraction: float, seed: int) -> None:
    chats = chats_of(names) + both_sides()
    split = check.split_by_group(chats, fraction, seed)
    sides = [{chat.origin.group for chat in side} for side in split.values()]
    assert not sides[0] & sides[1]
    assert len(split["train"]) + len(split["eval"]) == len(chats)


@given(names=groups, more=groups, seed=st.integers(0, 99))
def test_more_sessions_move_none_of_the_others(names: list[str], more: list[str], seed: int) -> None:
    before = check.split_by_group(chats_of(names) + both_sides(), 0.3, seed)
    after = check.split_by_group(chats_of(names + more) + both_sides(), 0.3, seed)
    for side in ("train", "eval"):
        assert {chat.origin.group for chat in before[side]} <= {chat.origin.group for chat in after[side]}


@given(names=groups, seed=st.integers(0, 99))
def test_a_larger_share_only_adds_to_the_held_out_sessions(names: list[str], seed: int) -> None:
    small = {name for name in names if check.draw(name, 0.2, seed) == "eval"}
    assert small <= {name for name in names if check.draw(name, 0.5, seed) == "eval"}


def test_the_share_of_held_out_sessions_is_about_what_was_asked_for() -> None:
    held_out = sum(check.draw(f"session-{number}", 0.1, 13) == "eval" for number in range(2000))
    assert 150 < held_out < 250


def test_the_users_choice_wins_over_the_draw() -> None:
    split = check.split_by_group(both_sides(), 0.999, 0)
    assert [chat.origin.group for chat in split["train"]] == ["chosen for train"]
    assert [chat.origin.group for chat in split["eval"]] == ["chosen for eval"]


@pytest.mark.parametrize(("split", "missing"), [("train", "eval"), ("eval", "train")])
def test_an_empty_side_is_an_error_that_says_what_to_do(split: str, missing: str) -> None:
    with pytest.raises(LabError, match=f"no conversation is left for {missing}; give more sessions"):
        check.split_by_group(chats_of(["a", "b"], split), 0.1, 0)


def test_a_conversation_over_the_limit_or_without_targets_is_refused() -> None:
    row = Tokenized("abc", [1, 2, 3], [-100, 2, 3])
    check.check_length(row, 3)
    with pytest.raises(UntrainableError, match="3 tokens, LLM_DATA__MAX_LENGTH is 2") as caught:
        check.check_length(row, 2)
    assert caught.value.reason == "too_long"
    with pytest.raises(UntrainableError) as caught:
        check.check_length(Tokenized("ab", [1, 2], [-100, -100]), 9)
    assert caught.value.reason == "no_targets"


def test_missing_conversations_name_the_command_that_writes_them(make_settings: Callable[..., Settings]) -> None:
    with pytest.raises(LabError, match="`make format` writes it"):
        check.run(make_settings())


def test_a_missing_tokenizer_names_the_command_that_writes_it(make_settings: Callable[..., Settings]) -> None:
    extract.run(make_settings())
    folding.run(make_settings())
    with pytest.raises(LabError, match="`make pretrain` writes it"):
        check.run(make_settings())


@pytest.fixture
def checked(tokenizer_volume: Path, tmp_path: Path) -> Path:
    """A data volume that is ready for check-data."""
    data_dir = Path(shutil.copytree(tokenizer_volume, tmp_path / "data"))
    extract.run(world.settings_on(data_dir))
    folding.run(world.settings_on(data_dir))
    return data_dir


def test_the_command_writes_the_dataset_and_shows_what_will_be_learned(checked: Path, tmp_path: Path) -> None:
    done = world.run_lab("check-data", "--num-examples=1", cwd=tmp_path, COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    train, held_out = (list(read_jsonl(checked / "dataset" / f"{side}.jsonl", Chat)) for side in ("train", "eval"))
    assert len(train) + len(held_out) == world.NUM_SESSIONS
    assert not {chat.origin.group for chat in train} & {chat.origin.group for chat in held_out}
    assert (checked / "dataset" / "rejects.jsonl").read_text() == ""
    assert f"check-data: {world.NUM_SESSIONS} in, {world.NUM_SESSIONS} out, 0 rejected" in done.stdout
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if "│" in line]
    figures = {name.strip(): [value.strip() for value in values] for name, *values in rows}
    assert figures["conversations"] == [str(len(train)), str(len(held_out))]
    assert figures["answers with tool calls"] == [str(2 * len(train)), str(2 * len(held_out))]
    assert figures["answers in text"] == [str(2 * len(train)), str(2 * len(held_out))]
    assert "⟦It is booked. I cannot sell it, sorry.<|im_end|>⟧" in done.stdout
    assert "⟦Both are in" in done.stdout
    again = world.run_lab("check-data", "--no-stats", cwd=tmp_path)
    assert again.stdout.startswith("check-data: up to date (")


def test_a_conversation_over_the_limit_goes_to_the_rejects(checked: Path, tmp_path: Path) -> None:
    long = world.call_line([{"role": "user", "content": "x" * 3000}], {"content": "ok"})
    world.write_lines(checked / "samples" / "sessions" / "agent-session-900.jsonl", [long])
    for stage in ("extract", "format"):
        assert world.run_lab(stage, cwd=tmp_path).returncode == 0
    done = world.run_lab("check-data", "--no-stats", cwd=tmp_path)
    assert "1 rejected (too_long 1)" in done.stdout
    [reject] = read_jsonl(checked / "dataset" / "rejects.jsonl", Reject)
    assert (reject.reason, reject.line, Path(reject.file).name) == ("too_long", world.NUM_SESSIONS + 1, "chats.jsonl")


def test_a_record_that_was_edited_by_hand_is_named_with_its_line(checked: Path, tmp_path: Path) -> None:
    with (checked / "interim" / "chats.jsonl").open("a") as file:
        file.write('{"id": "x"}\n')
    done = world.run_lab("check-data", cwd=tmp_path)
    assert done.returncode == 1
    assert f"chats.jsonl:{world.NUM_SESSIONS + 1}: messages: Field required" in done.stderr
    assert not (checked / "dataset" / "train.jsonl").exists()


@pytest.mark.torch
def test_the_stage_in_this_process_writes_and_shows_the_same(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = world.settings_on(checked, check={"stats": True, "num_examples": 2}, data={"max_length": 380})
    outcome = check.run(settings)
    shown = capsys.readouterr().out
    assert outcome.num_in == world.NUM_SESSIONS
    assert "What will be learned" in shown
    assert shown.count("⟦") == shown.count("⟧") >= 8
    assert check.run(settings).up_to_date
    assert not check.run(world.settings_on(checked, data={"eval_fraction": 0.4})).up_to_date
