from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lab import config, reference, variables
from lab.config import UsageError
from tests.world import ROOT

SEED_VARIABLES = [
    "LLM_MODEL__BASE_MODEL",
    "LLM_MODEL__TORCH_DTYPE",
    "LLM_MODEL__DEVICE_MAP",
    "LLM_DATA__DATA_DIR",
    "LLM_DATA__TRAIN_FILES",
    "LLM_DATA__EVAL_FILES",
    "LLM_DATA__MAX_LENGTH",
    "LLM_DATA__INJECT_TOOL_PREAMBLE",
    "LLM_DATA__INJECT_TOOL_CATALOG",
    "LLM_LORA__R",
    "LLM_LORA__LORA_ALPHA",
    "LLM_LORA__LORA_DROPOUT",
    "LLM_LORA__TARGET_MODULES",
    "LLM_TRAINING__OUTPUT_DIR",
    "LLM_TRAINING__NUM_TRAIN_EPOCHS",
    "LLM_TRAINING__PER_DEVICE_TRAIN_BATCH_SIZE",
    "LLM_TRAINING__GRADIENT_ACCUMULATION_STEPS",
    "LLM_TRAINING__LEARNING_RATE",
    "LLM_TRAINING__EVAL_STEPS",
    "LLM_TRAINING__SAVE_STEPS",
]


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `.env` in a working directory of its own, which the settings read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(config.ENV_FILE_VARIABLE)
    path = tmp_path / ".env"
    path.touch()
    return path


def test_a_flag_wins_over_environment_over_dotenv_over_recipe_over_default(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MODEL__BASE_MODEL", "someone/else")
    assert config.load().lora.r == 16
    monkeypatch.delenv("LLM_MODEL__BASE_MODEL")
    assert config.load().lora.r == config.TINY_RECIPE["lora"]["r"] == 32
    dotenv.write_text("LLM_LORA__R=3\n")
    assert config.load().lora.r == 3
    monkeypatch.setenv("LLM_LORA__R", "4")
    assert config.load().lora.r == 4
    assert config.load({"lora": {"r": 5}}).lora.r == 5


def test_each_source_changes_only_what_it_names(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write_text("LLM_TRAINING__SEED=1\n")
    monkeypatch.setenv("LLM_TRAINING__SAVE_STEPS", "2")
    training = config.load({"training": {"eval_steps": 3}}).training
    assert (training.seed, training.save_steps, training.eval_steps) == (1, 2, 3)
    assert training.num_train_epochs == config.TINY_RECIPE["training"]["num_train_epochs"]
    assert training.logging_steps == 10  # the default


@pytest.mark.parametrize("base_model", ["meta/other", "./tiny"])
def test_the_recipe_is_for_the_tiny_model_alone(base_model: str) -> None:
    settings = config.load({"model": {"base_model": base_model}})
    assert settings.training.output_dir == Path("runs/lora")
    assert settings.base_model_path == base_model


@pytest.mark.parametrize("text", ["q_proj,v_proj", ' ["q_proj", "v_proj"]', " q_proj , v_proj, "])
def test_a_list_is_json_or_comma_separated(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LORA__TARGET_MODULES", text)
    assert config.load().lora.target_modules == ["q_proj", "v_proj"]
    assert config.load({"lora": {"target_modules": text}}).lora.target_modules == ["q_proj", "v_proj"]


def test_an_empty_json_list_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_DATA__EVAL_FILES", "[]")
    assert config.load().data.eval_files == []


@pytest.mark.parametrize(
    ("variable", "value", "flag", "rule"),
    [
        ("LLM_LORA__R", "many", "--lora.r", "valid integer"),
        ("LLM_LORA__R", "0", "--lora.r", "greater than 0"),
        ("LLM_LORA__LORA_DROPOUT", "1.5", "--lora.lora-dropout", "less than 1"),
        ("LLM_EVALUATE__MAX_NEW_TOKENS", "some", "--evaluate.max-new-tokens", "valid integer"),
        ("LLM_MODEL__TORCH_DTYPE", "int8", "--model.torch-dtype", "'bfloat16'"),
        ("LLM_DATA__TRAIN_FILES", "[a", "--data.train-files", "not a JSON list"),
        ("LLM_TRAINING__BF16", "perhaps", "--training.bf16", "valid boolean"),
        ("LLM_LOG_LEVEL", "LOUD", "--log-level", "'DEBUG'"),
    ],
)
def test_a_bad_value_is_one_line_with_variable_flag_value_and_rule(
    variable: str, value: str, flag: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as caught:
        config.load()
    message = str(caught.value)
    assert message.startswith(f"{variable} (flag {flag}) = {value!r}: ")
    assert rule in message
    assert "\n" not in message


def test_a_group_given_as_a_whole_must_be_a_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LORA", '{"r": 3}')
    assert config.load().lora.r == 3
    monkeypatch.setenv("LLM_LORA", "16")
    with pytest.raises(UsageError, match=r"^LLM_LORA"):
        config.load()
    monkeypatch.setenv("LLM_LORA", "high")
    with pytest.raises(UsageError, match=r"^LLM_LORA: not a JSON object"):
        config.load()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LORA__R", "")
    assert config.load().lora.r == 32


def test_unknown_variables_are_named_with_the_nearest_known_one(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write_text("LLM_LORA__RR=1\nOTHER=2\n")
    monkeypatch.setenv("LLM_TRAINING__EPOCHS", "1")
    monkeypatch.setenv("LLM_LORA__R", "1")
    warnings = variables.unknown_variables(config.environment())
    assert warnings[0] == "LLM_LORA__RR is not a setting; did you mean LLM_LORA__R?"
    assert warnings[1].startswith("LLM_TRAINING__EPOCHS is not a setting; did you mean LLM_TRAINING__")
    assert len(warnings) == 2
    assert variables.unknown_variables({"LLM_ZZZZZZZZZZZZZZZ": "1", "LLM_ENV_FILE": "", "llm_lora__r": "1"}) == [
        "LLM_ZZZZZZZZZZZZZZZ is not a setting; docs/configuration.md lists them all"
    ]


@pytest.mark.parametrize("variable", SEED_VARIABLES)
def test_every_variable_of_the_seeds_is_a_setting(variable: str) -> None:
    assert variable in variables.known_variables()


def test_every_setting_has_a_sentence_and_a_valid_default() -> None:
    for variable, field in variables.known_variables().items():
        assert field.description, variable
        assert field.description.strip().endswith("."), variable
    config.Settings(_env_file=None)


def test_another_file_than_dotenv_can_be_named_or_none_at_all(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.write_text("LLM_LORA__R=3\n")
    dotenv.with_name("mine.env").write_text("LLM_LORA__R=9\n")
    monkeypatch.setenv("LLM_ENV_FILE", "mine.env")
    assert config.load().lora.r == 9
    monkeypatch.setenv("LLM_ENV_FILE", "")
    assert config.load().lora.r == 32
    monkeypatch.setenv("LLM_ENV_FILE", "not-there.env")
    assert config.env_file() is None


def test_vendor_keys_are_reported_as_set_or_not_without_their_values(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotenv.write_text("HF_TOKEN=hf_hidden\n")
    monkeypatch.setenv("LANGSMITH_API_KEY", "ls-hidden")
    keys = variables.set_vendor_keys(config.environment())
    assert {name for name, is_set in keys.items() if is_set} == {"HF_TOKEN", "LANGSMITH_API_KEY"}
    assert set(keys) == set(variables.VENDOR_VARIABLES)
    assert "hidden" not in json.dumps(keys)


def test_paths_are_relative_to_the_data_volume(tmp_path: Path) -> None:
    settings = config.load({"data": {"data_dir": tmp_path}, "training": {"output_dir": "runs/mine"}})
    assert settings.run_dir == tmp_path / "runs" / "mine"
    assert settings.path("/somewhere") == Path("/somewhere")
    assert settings.base_model_path == str(tmp_path / "models" / "tiny")


def test_the_committed_env_example_is_what_the_settings_say() -> None:
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == reference.env_example()


def test_the_committed_configuration_page_is_what_the_settings_say() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == reference.configuration_page()


def test_an_env_example_with_everything_uncommented_gives_the_defaults(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line.removeprefix("# ") for line in reference.env_example().splitlines()]
    dotenv.write_text("\n".join(line for line in lines if re.match(r"[A-Z_]+=", line) and "BASE_MODEL" not in line))
    monkeypatch.setenv("LLM_MODEL__BASE_MODEL", "some/model")
    defaults = config.load({"log_level": "INFO"})
    monkeypatch.setenv("LLM_ENV_FILE", "")
    assert config.load() == defaults
