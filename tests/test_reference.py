from __future__ import annotations

from lab import reference, variables


def test_every_variable_stands_in_both_pages_with_its_default() -> None:
    example, page = reference.env_example(), reference.configuration_page()
    for variable in variables.known_variables():
        assert f"\n# {variable}=" in example
        assert f"| `{variable}` | `--" in page
    assert "# LLM_DATA__INJECT_TOOL_CATALOG=true\n" in example
    assert "# LLM_EXPORT__QUANTS=Q8_0,Q4_K_M\n" in example
    assert "# LLM_TRAINING__BF16=\n" in example


def test_the_page_shows_what_the_tiny_recipe_changes() -> None:
    assert "| `LLM_LORA__R` | `--lora.r` | `16` (tiny: `32`) |" in reference.configuration_page()


def test_vendor_variables_are_named_in_both_pages() -> None:
    for variable in variables.VENDOR_VARIABLES:
        assert f"# {variable}=\n" in reference.env_example()
        assert f"| `{variable}` |" in reference.configuration_page()


def test_a_default_is_shown_as_it_would_stand_in_the_environment_file() -> None:
    fields = variables.known_variables()
    assert reference.shown(fields["LLM_LORA__TARGET_MODULES"]) == "all-linear"
    assert reference.shown(fields["LLM_MODEL__REVISION"]) == ""
    assert reference.shown(fields["LLM_FORCE"]) == "false"
    assert reference.shown(fields["LLM_TRAINING__LEARNING_RATE"]) == "0.0002"
