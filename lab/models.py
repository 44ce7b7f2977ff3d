"""Loading causal language models: the base model that the settings name, with or without a run's adapter.

Reads model folders or the Hub, writes nothing. Imports PyTorch and Transformers when called, never before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.config import TINY, Settings
from lab.errors import LabError
from lab.store import need

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def need_base(settings: Settings) -> None:
    """Raise LabError where the lab's own tiny model is asked for and not made yet."""
    if settings.model.base_model == TINY:
        need(Path(settings.base_model_path) / "model.safetensors", "pretrain")


def base_files(settings: Settings) -> list[Path]:
    """The files of a local base model that decide what it computes; none for a model of the Hub."""
    return model_files(Path(settings.base_model_path))


def model_files(folder: Path) -> list[Path]:
    """The files of a model or adapter folder that decide what it computes."""
    kinds = {".json", ".safetensors", ".model", ".jinja"}
    return sorted(path for path in folder.glob("*") if path.suffix in kinds)


def load_base(settings: Settings) -> PreTrainedModel:
    """The base model in the number format and on the device of the settings; raises LabError where it cannot load."""
    from transformers import AutoModelForCausalLM

    quiet_loading()
    path = settings.base_model_path
    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            revision=settings.model.revision,
            dtype=settings.model.torch_dtype,
            device_map=device_map(settings.model.device_map),
            trust_remote_code=settings.model.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise LabError(
            f"the base model cannot be loaded: {error}", where=path, mend="check LLM_MODEL__BASE_MODEL (and HF_TOKEN)"
        ) from None


def quiet_loading() -> None:
    """No bar for reading weights from disk, which takes a moment; downloads from the Hub keep theirs."""
    import transformers.utils.logging
    from huggingface_hub.utils.tqdm import enable_progress_bars

    transformers.utils.logging.disable_progress_bar()
    enable_progress_bars()


def device_map(name: str) -> str:
    """`auto` is a GPU where PyTorch sees one; raises LabError where CUDA is asked for and not there."""
    import torch

    if name == "auto":
        return "auto" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise LabError(
            "PyTorch sees no GPU", where="LLM_MODEL__DEVICE_MAP=cuda", mend="use auto or cpu, or see `make doctor`"
        )
    return name


def load_tuned(settings: Settings, adapter_dir: Path) -> PreTrainedModel:
    """The base model with a run's adapter on it; raises LabError where the adapter is another model's."""
    from peft import PeftModel

    try:
        tuned: Any = PeftModel.from_pretrained(load_base(settings), str(adapter_dir))
    except (RuntimeError, ValueError) as error:  # PEFT's words for shapes and for layers that do not fit
        raise LabError(
            f"the adapter does not fit the base model {settings.base_model_path}: {str(error).splitlines()[-1]}",
            where=str(adapter_dir),
            mend="set LLM_MODEL__BASE_MODEL to the model it was trained on",
        ) from None
    return tuned
