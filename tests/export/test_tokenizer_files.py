"""What the converter reads of a tokenizer, put back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.export.tokenizer_files import restore_for_llama_cpp

pytestmark = pytest.mark.torch  # Transformers, whose environment is PyTorch's

TOKEN = {"content": "<x>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def write_merged(folder: Path) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": 4, **TOKEN}]}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<x>"}))


def restored(base: Path, tmp_path: Path) -> dict[str, object]:
    write_merged(tmp_path / "merged")
    restore_for_llama_cpp(tmp_path / "merged", str(base), revision=None, adds_bos=True)
    config: dict[str, object] = json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())
    return config


def test_the_bases_own_settings_win(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.model").write_bytes(b"pieces")
    (base / "tokenizer_config.json").write_text('{"add_bos_token": false, "add_prefix_space": false}')
    config = restored(base, tmp_path)
    expected = {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": {"4": TOKEN}}
    assert config == {"eos_token": "<x>", **expected}
    assert (tmp_path / "merged" / "tokenizer.model").read_bytes() == b"pieces"


def test_where_the_base_says_nothing_the_tokenizers_behaviour_counts(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert restored(tmp_path / "base", tmp_path)["add_bos_token"] is True
    assert not (tmp_path / "merged" / "tokenizer.model").exists()


def test_a_base_of_the_hub_without_such_files_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert restored(Path("nobody/nothing"), tmp_path)["add_bos_token"] is True
