"""Conversion, quantization and the token check, with llama.cpp's real tools and a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.config import Settings
from lab.errors import GateError, LabError, UsageError
from lab.export import quantize, token_check
from lab.export.llama_cpp import Tools
from lab.tokens import load_renderer
from tests.tiny_run import make_chat, settings_of

pytestmark = [pytest.mark.torch, pytest.mark.llama_cpp]


def test_each_type_becomes_a_file_and_the_tokens_are_the_trainers(merged_settings: Settings) -> None:
    outcome = quantize.run(merged_settings)
    gguf_dir = merged_settings.run_dir / "gguf"
    assert sorted(path.name for path in gguf_dir.iterdir()) == ["demo-F16.gguf", "demo-Q8_0.gguf", "tokens.json"]
    assert json.loads((gguf_dir / "tokens.json").read_text()) == {"num_prompts": 3, "identical": True}
    assert (outcome.num_in, outcome.num_out) == (1, 2)
    assert "3 held-out prompts identical" in outcome.note
    assert (merged_settings.run_dir / "logs" / "convert.log").stat().st_size > 0
    assert quantize.run(merged_settings).up_to_date


def test_a_gguf_without_the_restored_tokenizer_files_is_refused(merged_settings: Settings) -> None:
    config_path = merged_settings.run_dir / "merged" / "tokenizer_config.json"
    config = json.loads(config_path.read_text())
    del config["added_tokens_decoder"], config["add_bos_token"]  # as Transformers 5 leaves it
    config_path.write_text(json.dumps(config))
    with pytest.raises(GateError, match=r"chat0, message 3: token ids differ: token 0 is 4 in training and 1 in llama"):
        quantize.run(merged_settings)
    assert not (merged_settings.run_dir / "gguf").exists()


def test_a_converter_that_fails_is_one_line_with_its_log(merged_settings: Settings) -> None:
    config_path = merged_settings.run_dir / "merged" / "config.json"
    config_path.write_text(config_path.read_text().replace("LlamaForCausalLM", "NoSuchModel"))
    with pytest.raises(LabError, match=r"NoSuchModel is not supported.*logs/convert.log") as caught:
        quantize.run(merged_settings)
    assert "\n" not in str(caught.value)
    assert not (merged_settings.run_dir / "gguf").exists()


def test_a_type_that_llama_quantize_does_not_know_gets_the_nearest_name(llama_tools: Tools) -> None:
    known = quantize.known_quants(llama_tools)
    assert {"Q4_K_M", "Q8_0", "F16", "IQ4_XS"} <= set(known)
    with pytest.raises(UsageError, match=r"LLM_EXPORT__QUANTS: .* knows no type 'q4_k_m'; did you mean Q4_K_M"):
        quantize.wanted_quants(["q4_k_m"], known)
    with pytest.raises(UsageError, match="it knows Q1_0, "):
        quantize.wanted_quants(["???"], known)
    assert quantize.wanted_quants(["F16", "Q8_0", "Q8_0"], known) == ["Q8_0"]


def test_weights_in_a_fallback_type_are_counted(merged_settings: Settings, llama_tools: Tools, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    merged_dir = merged_settings.run_dir / "merged"
    tokenizer = AutoTokenizer.from_pretrained(merged_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(merged_dir)
    quantize.convert(llama_tools, merged_dir, tmp_path / "f16.gguf", tmp_path)
    num_fallbacks = quantize.quantize(llama_tools, tmp_path / "f16.gguf", tmp_path / "q.gguf", "Q4_K_M", tmp_path)
    assert num_fallbacks > 0


def test_the_ids_include_the_bos_that_the_vocabulary_adds(
    merged_settings: Settings, llama_tools: Tools, tmp_path: Path
) -> None:
    merged_dir = merged_settings.run_dir / "merged"
    config_path = merged_dir / "tokenizer_config.json"
    config_path.write_text(config_path.read_text().replace('"add_bos_token": false', '"add_bos_token": true'))
    quantize.convert(llama_tools, merged_dir, tmp_path / "f16.gguf", tmp_path)
    text = "<|im_start|>user"
    with_bos = token_check.llama_cpp_ids(llama_tools, tmp_path / "f16.gguf", text)
    without = token_check.llama_cpp_ids(llama_tools, tmp_path / "f16.gguf", text, add_bos=False)
    assert with_bos == [1, *without]
    assert without[0] == 4
    template_path = merged_dir / "chat_template.jinja"
    template_path.write_text("{{ bos_token }}" + template_path.read_text())  # as Llama 3's template does
    renderer = load_renderer(merged_settings, str(merged_dir))
    eval_path = merged_settings.path("dataset/eval.jsonl")
    assert token_check.run_check(llama_tools, tmp_path / "f16.gguf", renderer, eval_path) == 3


def test_a_gguf_that_cannot_be_read_is_one_line(llama_tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(LabError, match="llama-tokenize: failed"):
        token_check.llama_cpp_ids(llama_tools, tmp_path / "broken.gguf", "text")


def test_the_prompt_is_what_stands_before_the_last_answer(merged_settings: Settings) -> None:
    renderer = load_renderer(merged_settings, str(merged_settings.run_dir / "merged"))
    prompts = list(token_check.held_out_prompts(renderer, merged_settings.path("dataset/eval.jsonl")))
    assert [prompt.name for prompt in prompts] == [f"chat{number}, message 3" for number in range(3)]
    assert prompts[0].ids == renderer.prompt_ids(make_chat(0), 3)


@pytest.mark.parametrize(
    ("trained", "served", "said"),
    [
        ([4, 5], [4, 6], "token 1 is 5 in training and 6 in llama.cpp (2 against 2 tokens)"),
        ([4], [4, 6], "token 1 is nothing in training and 6 in llama.cpp (1 against 2 tokens)"),
        ([4, 5], [], "token 0 is 4 in training and nothing in llama.cpp (2 against 0 tokens)"),
    ],
)
def test_the_first_difference_is_named(trained: list[int], served: list[int], said: str) -> None:
    assert token_check.first_difference(trained, served) == f"token ids differ: {said}"


def test_what_is_missing_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="`make merge`"):
        quantize.run(settings_of(tmp_path))
    (tmp_path / "runs" / "demo" / "merged").mkdir(parents=True)
    with pytest.raises(LabError, match="`make check-data`"):
        quantize.run(settings_of(tmp_path))
