"""Names of environment variables: which ones the lab knows, which of the given ones it does not, which keys are set.

Pure functions over the settings and over what lab/config.py read from the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic.fields import FieldInfo

from lab.config import ENV_FILE_VARIABLE, PREFIX, Tree, groups, variable_name

VENDOR_VARIABLES = {
    "LANGFUSE_PUBLIC_KEY": "traces from Langfuse",
    "LANGFUSE_SECRET_KEY": "traces from Langfuse",
    "LANGSMITH_API_KEY": "traces from LangSmith",
    "OPENAI_API_KEY": "models behind a hosted OpenAI-compatible endpoint",
    "HF_TOKEN": "gated models of the Hugging Face Hub",
    "WANDB_API_KEY": "training curves on Weights & Biases",
}


def known_variables() -> dict[str, FieldInfo]:
    """Every `LLM_` variable with its field."""
    top = {variable_name([name]): field for name, field in Tree.model_fields.items()}
    nested = {
        variable_name([group, name]): field
        for group, model in groups().items()
        for name, field in model.model_fields.items()
    }
    return top | nested


def unknown_variables(given: Iterable[str]) -> list[str]:
    """One warning for each `LLM_` name among those given that no setting reads, with the nearest known name."""
    known = [*known_variables(), ENV_FILE_VARIABLE]
    strangers = sorted({name for name in given if name.startswith(PREFIX) and name.upper() not in known})
    return [f"{name} is not a setting; {_nearest(name, known)}" for name in strangers]


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]}?" if matches else "docs/configuration.md lists them all"


def set_vendor_keys(environment: Mapping[str, str | None]) -> dict[str, bool]:
    """Which of the vendors' own variables have a value; never the value."""
    return {name: bool(environment.get(name)) for name in VENDOR_VARIABLES}
