"""Every setting of the lab: one tree of groups, read from flags, the environment, `.env` and the defaults below.

The docstring under a field is its `--help` text, its comment in `.env.example` and its row in docs/configuration.md.
This is the only module that reads the environment. Paths are relative to the data volume, `LLM_DATA__DATA_DIR`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from lab.errors import UsageError

PREFIX = "LLM_"
ENV_FILE_VARIABLE = "LLM_ENV_FILE"  # names another file than .env; empty: none is read
TINY = "tiny"


def _split(value: object) -> object:
    """A list from JSON (`["a", "b"]`) or from comma-separated text (`a,b`)."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a JSON list ({error.msg})") from None
    return [part.strip() for part in text.split(",") if part.strip()]


Names = Annotated[list[str], NoDecode, BeforeValidator(_split)]


class Group(BaseModel):
    """What all groups share: field docstrings are help texts, values are checked, defaults too."""

    model_config = ConfigDict(use_attribute_docstrings=True, validate_default=True, protected_namespaces=())


class ModelSettings(Group):
    """The base model that is trained."""

    base_model: str = TINY
    """Hub id or folder of the base model; `tiny` is the lab's own small model, pretrained by `make pretrain`."""
    revision: str | None = None
    """Branch, tag or commit of the base model on the Hub; empty takes its main branch."""
    torch_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format that the weights are loaded in; `auto`: as the checkpoint has them."""
    device_map: str = "auto"
    """Where the model runs: `auto` (a GPU where there is one), `cpu` or `cuda`."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model from the Hub. Leave it off unless you have read that code."""


class DataSettings(Group):
    """Where data lies and how it is shown to the model."""

    data_dir: Path = Path("data")
    """The data volume: every other path is relative to it."""
    train_files: Names = ["samples/sessions/agent-session-*.jsonl"]
    """Session logs to learn from: glob patterns relative to the data volume, as JSON or comma-separated."""
    eval_files: Names = []
    """Session logs to hold out; empty: whole sessions are drawn from the training files."""
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the sessions that is held out where no evaluation files are given."""
    split_seed: int = 13
    """Seed of the draw of the held-out sessions."""
    max_length: int = Field(4096, gt=0)
    """Longest conversation in tokens; a longer one is rejected, never cut."""
    tool_catalogue: Path = Path("tool_catalogue.json")
    """OpenAI tool definitions that fill `tools` where a session logged tool use without them."""
    inject_tool_catalog: bool = True
    """Give a session that has no tools those of the catalogue; where the model's chat template shows no tools, the
    definitions are written into the system prompt as text instead."""
    inject_tool_preamble: bool = True
    """Put the instructions for calling tools into the system prompt where the chat template shows no tools."""


class CheckSettings(Group):
    """What check-data shows."""

    num_examples: int = Field(0, ge=0)
    """Number of conversations to show as the model will see them, trained tokens marked."""
    stats: bool = True
    """Show counts and token lengths of the dataset."""


class PretrainSettings(Group):
    """The lab's own tiny base model."""

    num_steps: int = Field(600, gt=0)
    """Optimizer steps of pretraining."""
    seed: int = 7
    """Seed of its weights and of the order of its text."""


class LoraSettings(Group):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(16, gt=0)
    """Rank of the update matrices: more learns more and costs memory."""
    lora_alpha: int = Field(32, gt=0)
    """Scale of the update: its weight is alpha / r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in front of the update."""
    target_modules: Names = ["all-linear"]
    """Layers that get an update, e.g. q_proj,v_proj; `all-linear` is every linear layer but the head."""


class TrainingSettings(Group):
    """Supervised fine-tuning with TRL."""

    output_dir: Path = Path("runs/lora")
    """Folder of the run; its last part is the run's name."""
    num_train_epochs: float = Field(3.0, gt=0)
    """Passes over the training conversations."""
    per_device_train_batch_size: int = Field(2, gt=0)
    """Conversations a step on each device: lower it first when memory runs out."""
    gradient_accumulation_steps: int = Field(8, gt=0)
    """Steps summed into one update; the effective batch is this times the batch size."""
    learning_rate: float = Field(2e-4, gt=0)
    """Highest learning rate."""
    lr_scheduler_type: str = "cosine"
    """Course of the learning rate, by Transformers' names."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    bf16: bool | None = None
    """bfloat16 mixed precision; empty: where the GPU can."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, less memory."""
    logging_steps: int = Field(10, gt=0)
    """Steps between two points of the training curve."""
    eval_steps: int = Field(50, gt=0)
    """Steps between two evaluations of the held-out loss."""
    save_steps: int = Field(50, gt=0)
    """Steps between two checkpoints, from which a killed run goes on."""
    seed: int = 42
    """Seed of the adapter's weights and of the data order."""


class EvaluateSettings(Group):
    """Comparison on held-out conversations."""

    contenders: Names = ["base", "tuned"]
    """Which models to compare: base, tuned, and quantized (the served model behind `LLM_EVALUATE__SERVED_URL`)."""
    max_new_tokens: int = Field(256, gt=0)
    """Most tokens that an answer may have."""
    batch_size: int = Field(32, gt=0)
    """Prompts generated together by the local models."""
    served_url: str | None = None
    """OpenAI-compatible endpoint of the contender `quantized`; empty: the one that `make ollama-serve` started."""
    concurrency: int = Field(4, gt=0)
    """Requests sent to that endpoint at a time."""


class ExportSettings(Group):
    """Merging, conversion to GGUF and quantization with llama.cpp."""

    llama_cpp_dir: Path | None = None
    """A built llama.cpp (with convert_hf_to_gguf.py and llama-quantize); empty: from the PATH, else built from the
    pinned source package."""
    cache_dir: Path = Path("~/.cache/llm-tuning-lab")
    """Where the built llama.cpp is kept."""
    quants: Names = ["Q8_0", "Q4_K_M"]
    """llama.cpp quantization types to make beside F16."""


class ServeSettings(Group):
    """Serving the quantized model behind an OpenAI-compatible endpoint."""

    backend: Literal["auto", "ollama", "embedded"] = "auto"
    """`ollama`, `embedded` (llama.cpp in this environment), or `auto`: Ollama where one answers."""
    host: str = "127.0.0.1"
    """Address that the embedded server listens on."""
    port: int = Field(8080, ge=0, le=65535)
    """Port of the embedded server."""
    ollama_host: str = "http://127.0.0.1:11434"
    """Address of the Ollama server."""
    quant: str = "Q4_K_M"
    """Which quantization to serve: F16 or one of `LLM_EXPORT__QUANTS`."""
    model_name: str = "lab"
    """Name of the served model; the run's name is its tag, as in `lab:demo`."""
    num_parallel: int = Field(4, gt=0)
    """Requests that the embedded server answers at a time, each with the whole context length."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of chat; 0 takes the likeliest token."""


class ChatSettings(Group):
    """Talking to the served model."""

    message: str | None = None
    """One message to send: its answer is printed and the command ends; empty opens a conversation."""
    system: str | None = None
    """System prompt of the conversation."""
    tools: Names = []
    """Tools of the catalogue to offer, by name; empty: all of them."""
    max_tokens: int = Field(512, gt=0)
    """Most tokens that an answer may have."""


# What differs from the defaults where the base model is the lab's own tiny one, so that every command works on the
# sample data of a fresh clone. Flags, environment and .env still win.
TINY_RECIPE: dict[str, dict[str, Any]] = {
    "data": {"max_length": 1024},
    "lora": {"r": 32, "lora_alpha": 64},
    "training": {
        "output_dir": "runs/demo",
        "num_train_epochs": 8,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "learning_rate": 3e-3,
    },
    "evaluate": {"max_new_tokens": 128},
    # Its sessions carry two to four tools each; the whole catalogue would fill its context.
    "chat": {"tools": ["order_status", "book_repair", "find_dealer"], "max_tokens": 128},
}


class RecipeSource(PydanticBaseSettingsSource):
    """Below flags and environment, above the defaults: the tiny model's recipe, where that is the base model."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        model = self.current_state.get("model", {})
        return TINY_RECIPE if model.get("base_model", TINY) == TINY else {}


class Tree(BaseSettings):
    """The settings that belong to no group."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="ignore",
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is told on the way."""
    force: bool = False
    """Repeat a stage that is up to date."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, RecipeSource(settings_cls)


class Settings(Tree):
    """All settings; each group is read by the stages that need it."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    check: CheckSettings = CheckSettings()
    pretrain: PretrainSettings = PretrainSettings()
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    export: ExportSettings = ExportSettings()
    serve: ServeSettings = ServeSettings()
    chat: ChatSettings = ChatSettings()

    def path(self, relative: str | Path) -> Path:
        """A path on the data volume (an absolute one stays as it is)."""
        return self.data.data_dir / relative

    @property
    def run_dir(self) -> Path:
        """Folder of the current run."""
        return self.path(self.training.output_dir)

    @property
    def base_model_path(self) -> str:
        """What `from_pretrained` gets: the tiny model's folder, else the Hub id or folder that was given."""
        return str(self.path("models/tiny")) if self.model.base_model == TINY else self.model.base_model


def env_file() -> Path | None:
    """The file that settings are read from besides the environment, if it is there."""
    name = os.environ.get(ENV_FILE_VARIABLE, ".env")
    return Path(name) if name and Path(name).is_file() else None


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (nested values), environment, `.env` and defaults; raises UsageError in one line."""
    try:
        return Settings(_env_file=env_file(), **(flags or {}))
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from None
    except SettingsError as error:  # a whole group as JSON that is none, e.g. LLM_LORA=16
        variable = variable_name([str(error).split('"')[1]])
        raise UsageError("not a JSON object", where=variable, mend=f"set {variable}__... one by one") from None


def _first_problem(error: ValidationError) -> str:
    """Variable, value and rule of the first value that does not fit (secrets show no value)."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"] if not isinstance(part, int)]
    value = "" if location[-1].endswith(("key", "token")) else f" = {first['input']!r}"
    rule = first["msg"].removeprefix("Value error, ")
    return f"{variable_name(location)} (flag {flag_name(location)}){value}: {rule[0].lower()}{rule[1:]}"


def variable_name(location: list[str]) -> str:
    """`["lora", "r"]` -> `LLM_LORA__R`."""
    return PREFIX + "__".join(location).upper()


def flag_name(location: list[str]) -> str:
    """`["lora", "lora_alpha"]` -> `--lora.lora-alpha`."""
    return "--" + ".".join(location).replace("_", "-")


def groups() -> dict[str, type[Group]]:
    """Every group of settings by name, in the order of the tree."""
    annotations = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: group for name, group in annotations.items() if isinstance(group, type) and issubclass(group, Group)}


def environment() -> dict[str, str | None]:
    """What the process was given: `.env` below the environment itself."""
    path = env_file()
    return {**(dotenv_values(path) if path else {}), **os.environ}
