"""Reads the pretraining text and the sessions' users, tool schemas and tool results.
Writes a Llama-type tokenizer directory: tokenizer.model, tokenizer.json, tokenizer_config.json, chat_template.jinja.
Why: llama.cpp converts only vocabularies that it knows or SentencePiece ones, so the tiny base model trains its own.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

UNK, BOS, END_OF_TURN, PAD, START_OF_TURN = "<unk>", "<s>", "<|im_end|>", "<pad>", "<|im_start|>"
SPECIAL_TOKENS = (UNK, BOS, END_OF_TURN, PAD, START_OF_TURN)
"""In the order of their ids, 0 to 4."""

TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tools>", "</tools>")
"""Added tokens that are not special: a decoder that skips special tokens must still show where a call begins."""

TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")

_WORD = re.compile(r" [a-z]+|[A-Za-z]+|[0-9]+|[^A-Za-z0-9 ]+")


def train_tokenizer(
    pretrain_path: Path, session_paths: Iterable[Path], tokenizer_dir: Path, *, vocab_size: int = 1536
) -> None:
    """Trains a SentencePiece BPE vocabulary and saves it in the forms that Transformers and llama.cpp read.

    The assistant's turns of the sessions are left out: they are what the model is later tuned and judged on.
    """
    sentences = [*pretrain_sentences(pretrain_path), *session_sentences(session_paths), *number_sentences()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=False,
        # Without this a schema's `{"type":` is four pieces; with it one, and a row is half as long.
        split_by_unicode_script=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        eos_piece=END_OF_TURN,
        control_symbols=[START_OF_TURN],
        user_defined_symbols=list(TOOL_TAGS),
        num_threads=1,
        minloglevel=2,
    )
    save_tokenizer(model.getvalue(), tokenizer_dir)


def pretrain_sentences(path: Path) -> Iterator[str]:
    for row in _read_rows(path):
        if "text" in row:
            yield from _text_sentences(row["text"])
        else:
            yield from _schema_sentences(row["tools"] or [])
            yield from _message_sentences(row["messages"], with_assistant=True)


def session_sentences(paths: Iterable[Path]) -> Iterator[str]:
    """What the user, the tools and the schemas say in the longest record of each session."""
    for path in paths:
        records = [row for row in _read_rows(path, skip_broken=True) if isinstance(row.get("request"), dict)]
        if not records:
            continue
        request = max(records, key=lambda row: len(row["request"]["messages"]))["request"]
        yield from _text_sentences(request["system"] or "")
        yield from _schema_sentences(request["tools"] or [])
        yield from _message_sentences(request["messages"], with_assistant=False)


def number_sentences(num_repeats: int = 100) -> Iterator[str]:
    """Numbers often enough that each below 100 is one token: two digits of one number are easily mixed up."""
    for number in range(10, 100):
        yield from [str(number)] * num_repeats


def _read_rows(path: Path, *, skip_broken: bool = False) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            # Broken session lines are the extractor's to report; the vocabulary only needs enough text.
            if not skip_broken:
                raise


def _schema_sentences(tools: list[dict[str, Any]]) -> Iterator[str]:
    for tool in tools:
        function = tool["function"]
        yield json.dumps({"name": function["name"], "parameters": function["parameters"]["properties"]})


def _message_sentences(messages: list[dict[str, Any]], *, with_assistant: bool) -> Iterator[str]:
    for message in messages:
        yield message["role"]
        if message["role"] == "assistant" and not with_assistant:
            continue
        if message.get("content"):
            yield from _text_sentences(message["content"])
        for call in message.get("tool_calls") or []:
            yield f'{{"name": "{call["function"]["name"]}", "arguments": '
            yield from _text_sentences(call["function"]["arguments"])


def _text_sentences(text: str) -> Iterator[str]:
    """The words of a text; of a JSON object the keys with their braces, and the words of each value.

    A word that is a sentence of its own never grows together with the space, dot or quotation mark beside it, so
    `Lyon` is the same token in the user's words and in the call: copying is then a matter of finding, not of mapping.
    """
    if not text.startswith("{"):
        yield from _WORD.findall(text)
        return
    separator = "{"
    for key, value in json.loads(text).items():
        yield f'{separator}"{key}": '
        yield from _WORD.findall(str(value))
        separator = " "


def save_tokenizer(sentencepiece_model: bytes, tokenizer_dir: Path) -> None:
    """Writes the vocabulary in both forms, with the configuration that both sides read."""
    tokenizer_dir.mkdir(parents=True, exist_ok=True)
    (tokenizer_dir / "tokenizer.model").write_bytes(sentencepiece_model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    tokenizer = fast_tokenizer(processor)
    tokenizer.save(str(tokenizer_dir / "tokenizer.json"))
    (tokenizer_dir / "chat_template.jinja").write_text(TEMPLATE_PATH.read_text(encoding="utf-8"), encoding="utf-8")
    config = json.dumps(tokenizer_config(tokenizer), indent=2)
    (tokenizer_dir / "tokenizer_config.json").write_text(f"{config}\n", encoding="utf-8")


def fast_tokenizer(processor: Any) -> Tokenizer:
    """The same byte-pair merges in the `tokenizers` library: pieces in the order of their scores, no pre-tokenizer."""
    vocab = {processor.id_to_piece(number): number for number in range(processor.get_piece_size())}
    merges = []
    for piece, number in vocab.items():
        if not (processor.is_control(number) or processor.is_unknown(number) or processor.is_byte(number)):
            pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
            merges += [(number, pair) for pair in pairs if pair[0] in vocab and pair[1] in vocab]
    ordered = [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]
    model = models.BPE(vocab=vocab, merges=ordered, unk_token=UNK, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TOOL_TAGS])
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, object]:
    """`add_bos_token`, `add_prefix_space` and `added_tokens_decoder` are what llama.cpp's converter reads."""
    decoder = {
        str(number): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "added_tokens_decoder": decoder,
    }
