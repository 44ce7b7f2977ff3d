"""train: teaches the base model the dataset's answers, as a LoRA adapter.

Reads dataset/{train,eval}.jsonl and the base model, writes runs/NAME/adapter (weights, tokenizer, chat template) and
metrics.jsonl. Loss is taken on assistant messages alone; a killed run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.config import Settings
from lab.models import base_files, load_base, need_base
from lab.records import Chat
from lab.store import Outcome, Step, atomic_dir, atomic_file, current, finish, need, read_json, read_jsonl, write_json
from lab.tokens import Renderer, load_renderer

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import SFTTrainer

log = logging.getLogger("lab.train")


def run(settings: Settings) -> Outcome:
    """Train, unless the adapter is up to date with dataset, base model and settings."""
    started = time.time()
    data_paths = [need(settings.path(f"dataset/{side}.jsonl"), "check-data") for side in ("train", "eval")]
    need_base(settings)
    step = make_step(settings, data_paths)
    if not settings.force and (outcome := current(step)):
        return outcome
    renderer = load_renderer(settings)
    train_chats, eval_chats = (list(read_jsonl(path, Chat)) for path in data_paths)
    trainer = make_trainer(settings, renderer, to_dataset(train_chats, renderer), to_dataset(eval_chats, renderer))
    checkpoint = last_checkpoint(settings.run_dir / "checkpoints", fingerprint(step, data_paths))
    if checkpoint:
        log.info("going on from %s", checkpoint.name)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    outputs = save(trainer, renderer, settings.run_dir)
    shutil.rmtree(settings.run_dir / "checkpoints")
    outcome = Outcome("train", len(train_chats), len(train_chats), outputs=outputs, note=_note(trainer))
    return finish(step, outcome, started)


def make_step(settings: Settings, data_paths: list[Path]) -> Step:
    """What the adapter depends on."""
    chosen = {
        "model": settings.model,
        "lora": settings.lora,
        "training": settings.training.model_dump(exclude={"output_dir"}),
        "inject": settings.data.model_dump(include={"inject_tool_catalog", "inject_tool_preamble"}),
        "max_length": settings.data.max_length,
    }
    code = ("train", "tokens.py", "models.py")
    return Step("train", settings.run_dir / "train.manifest.json", [*data_paths, *base_files(settings)], chosen, code)


def to_dataset(chats: list[Chat], renderer: Renderer) -> Dataset:
    """Token ids and labels; nothing else goes through Arrow, which would merge the schemas of tools."""
    from datasets import Dataset

    rows = [renderer.tokenize(chat) for chat in chats]
    return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})


def make_trainer(settings: Settings, renderer: Renderer, train_data: Dataset, eval_data: Dataset) -> SFTTrainer:
    """TRL's trainer with a LoRA adapter on the base model."""
    import transformers
    from peft import LoraConfig
    from trl import SFTTrainer

    from lab.train.callbacks import ProgressCallback

    transformers.utils.logging.set_verbosity_error()  # its tables would run through our progress bar
    chosen = settings.lora
    target_modules = chosen.target_modules[0] if chosen.target_modules == ["all-linear"] else chosen.target_modules
    lora = LoraConfig(
        r=chosen.r,
        lora_alpha=chosen.lora_alpha,
        lora_dropout=chosen.lora_dropout,
        target_modules=target_modules,
        task_type="CAUSAL_LM",
    )
    transformers.set_seed(settings.training.seed)
    trainer = SFTTrainer(
        model=load_base(settings),
        args=training_arguments(settings),
        train_dataset=train_data,
        eval_dataset=eval_data,
        processing_class=renderer.tokenizer,
        peft_config=lora,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.add_callback(ProgressCallback())
    return trainer


def training_arguments(settings: Settings) -> Any:
    """The settings in TRL's names."""
    import torch
    from trl import SFTConfig

    chosen = settings.training
    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(settings.run_dir / "checkpoints"),
        max_length=settings.data.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},  # ids and labels are ours already, none is too long
        num_train_epochs=chosen.num_train_epochs,
        per_device_train_batch_size=chosen.per_device_train_batch_size,
        per_device_eval_batch_size=chosen.per_device_train_batch_size,
        gradient_accumulation_steps=chosen.gradient_accumulation_steps,
        gradient_checkpointing=chosen.gradient_checkpointing,
        learning_rate=chosen.learning_rate,
        lr_scheduler_type=chosen.lr_scheduler_type,
        warmup_steps=chosen.warmup_ratio,  # below 1 it is a share of the steps
        weight_decay=chosen.weight_decay,
        bf16=(gpu and torch.cuda.is_bf16_supported()) if chosen.bf16 is None else chosen.bf16,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        train_sampling_strategy="group_by_length",  # less padding; the order stays random within groups
        logging_steps=chosen.logging_steps,
        eval_strategy="steps",
        eval_steps=chosen.eval_steps,
        save_strategy="steps",
        save_steps=chosen.save_steps,
        save_total_limit=2,
        seed=chosen.seed,
        report_to="none",
        disable_tqdm=True,
    )


def fingerprint(step: Step, data_paths: list[Path]) -> dict[str, Any]:
    """What a checkpoint must have been made from to be continued."""
    from lab.store import file_hash, plain

    return {"settings": plain(step.settings), "data": [file_hash(path) for path in data_paths]}


def last_checkpoint(folder: Path, made_from: dict[str, Any]) -> Path | None:
    """The newest whole checkpoint of the same settings and data; those of others are removed."""
    note = folder / "made_from.json"
    if note.exists() and read_json(note) == made_from:
        states = folder.glob("checkpoint-*/trainer_state.json")  # written last: a checkpoint without it is half a one
        return max((path.parent for path in states), key=lambda path: int(path.name.split("-")[1]), default=None)
    shutil.rmtree(folder, ignore_errors=True)
    write_json(note, made_from)
    return None


def save(trainer: SFTTrainer, renderer: Renderer, run_dir: Path) -> list[Path]:
    """Adapter, tokenizer, chat template and the training curve."""
    with atomic_dir(run_dir / "adapter") as folder:
        trainer.model.save_pretrained(folder)
        renderer.tokenizer.save_pretrained(folder)
    with atomic_file(run_dir / "metrics.jsonl") as file:
        for entry in trainer.state.log_history:
            file.write(json.dumps(entry) + "\n")
    return [run_dir / "adapter", run_dir / "metrics.jsonl"]


def _note(trainer: SFTTrainer) -> str:
    history = trainer.state.log_history
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    held_out = f", held-out loss {losses[-1]:.3f}" if losses else ""
    return f"{trainer.state.global_step} steps{held_out}"
