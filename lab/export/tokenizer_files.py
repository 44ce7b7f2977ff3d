"""Puts back into a merged model what llama.cpp's converter reads and Transformers 5 no longer writes.

Reads the base model's `tokenizer.model` and `tokenizer_config.json` and the merged `tokenizer.json`; writes
`tokenizer.model` and `tokenizer_config.json` into the merged folder. Without it `<|im_start|>` becomes a NORMAL token.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lab.store import read_json, write_json

ADDED_TOKEN_KEYS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def restore_for_llama_cpp(merged_dir: Path, base: str, *, revision: str | None, adds_bos: bool) -> None:
    """Complete `merged_dir`. `adds_bos` is what the tokenizer does, where the base's configuration does not say."""
    sentencepiece = find_base_file(base, "tokenizer.model", revision)
    if sentencepiece is not None:
        shutil.copyfile(sentencepiece, merged_dir / "tokenizer.model")
    base_config_path = find_base_file(base, "tokenizer_config.json", revision)
    base_config = read_json(base_config_path) if base_config_path else {}
    config_path = merged_dir / "tokenizer_config.json"
    config = read_json(config_path)
    config["added_tokens_decoder"] = added_tokens_decoder(merged_dir / "tokenizer.json")
    config["add_bos_token"] = base_config.get("add_bos_token", adds_bos)
    for name in ("add_eos_token", "add_prefix_space"):
        if name in base_config:
            config[name] = base_config[name]
    write_json(config_path, config)


def added_tokens_decoder(tokenizer_json: Path) -> dict[str, dict[str, Any]]:
    """The added tokens by id, as Transformers 4 wrote them; llama.cpp takes their types from here."""
    tokens = json.loads(tokenizer_json.read_text(encoding="utf-8"))["added_tokens"]
    return {str(token["id"]): {key: token[key] for key in ADDED_TOKEN_KEYS} for token in tokens}


def find_base_file(base: str, name: str, revision: str | None) -> Path | None:
    """A file of the base model, from its folder or from the Hub's cache; None where it has none of that name."""
    if Path(base).is_dir():
        path = Path(base) / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        base,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None
