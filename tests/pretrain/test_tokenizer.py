from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from lab import pretrain
from lab.config import Settings
from lab.errors import LabError
from lab.pretrain.tokenizer import SPECIAL_TOKENS, TOOL_TAGS, session_sentences
from tests import world


@pytest.fixture(scope="module")
def folder(tokenizer_volume: Path) -> Path:
    return tokenizer_volume / "models" / "tiny"


def test_special_tokens_come_first_and_tool_tags_are_no_special_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [tokenizer.id_to_token(number) for number in range(5)] == list(SPECIAL_TOKENS)
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    assert all(added[token].special for token in SPECIAL_TOKENS)
    assert not any(added[tag].special for tag in TOOL_TAGS)
    assert len(tokenizer.encode("".join(TOOL_TAGS)).ids) == len(TOOL_TAGS)


@pytest.mark.parametrize("text", ["bakeli moru", "  two  spaces\nline", "Malmö 🚲 𝔘 红", '{"order_id": "A-1"}', ""])
def test_both_forms_of_the_vocabulary_give_the_same_ids_and_lose_no_character(folder: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = tokenizer.encode(text).ids
    assert ids == pieces.encode(text)
    assert tokenizer.decode(ids) == text


def test_the_configuration_holds_what_llama_cpp_reads(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["add_bos_token"] is False
    assert config["added_tokens_decoder"]["4"]["content"] == "<|im_start|>"
    assert config["eos_token"] == "<|im_end|>"


def test_the_assistants_own_words_are_not_read_from_the_sessions(volume: Path) -> None:
    sentences = list(session_sentences(sorted((volume / "samples" / "sessions").glob("*.jsonl"))))
    joined = "".join(sentences)
    assert "Monday" in joined
    assert "Both" not in joined
    assert "sorry" not in joined


def test_the_tokenizer_is_made_once(volume: Path, make_settings: Callable[..., Settings]) -> None:
    outcome = pretrain.run_tokenizer(make_settings())
    assert outcome is not None
    assert sorted(path.name for path in outcome.outputs) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    first = (volume / "models" / "tiny" / "tokenizer.json").read_bytes()
    again = pretrain.run_tokenizer(make_settings())
    assert again is not None
    assert again.up_to_date
    pretrain.run_tokenizer(make_settings(force=True))
    assert (volume / "models" / "tiny" / "tokenizer.json").read_bytes() == first


def test_another_base_model_needs_no_pretraining(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(model={"base_model": "someone/else"})
    assert pretrain.run(settings) is None
    assert pretrain.run_tokenizer(settings) is None


def test_missing_sample_text_says_how_to_get_it_back(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the sample text is not there; `git checkout data/samples`"):
        pretrain.run(world.settings_on(tmp_path))
