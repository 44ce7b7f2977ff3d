"""docs/migration.md, data-formats.md and troubleshooting.md say what is true of the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from lab import cli, config, reference, variables
from lab.errors import UsageError
from lab.records import Chat, Observation, Prediction, Record, Reject

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MIGRATION = (DOCS / "migration.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")
SCRIPTS = {"lab/check_data.py": "check-data", "lab/train_lora.py": "train"}
Row = tuple[str, ...]


# --- the migration table ---------------------------------------------------------------------------------------------


def sections(text: str) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_rows(text: str, *header: str) -> list[Row]:
    """The rows of every table with this header."""
    rows: list[Row] = []
    wanted = False
    for line in text.splitlines():
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if not cells:
            wanted = False
        elif cells == header:
            wanted = True
        elif wanted and set(line) - set("|- "):
            rows.append(cells)
    return rows


NAME_TABLES = {
    heading: rows
    for heading, text in sections(MIGRATION).items()
    if (rows := table_rows(text, "there", "here", "note"))
}
NAME_ROWS = [row for rows in NAME_TABLES.values() for row in rows]
VALUE_ROWS = table_rows(MIGRATION, "value", "there", "here", "reason")
CHOICE_ROWS = table_rows(MIGRATION, "choice", "there", "here", "reason")
NAMES_HERE = sorted(
    {name for row in NAME_ROWS for name in CODE.findall(row[1])}
    | {name for row in [*VALUE_ROWS, *CHOICE_ROWS] for name in CODE.findall(row[2])}
)
# A note may mention our names too; those that look like a command or a variable must exist as well.
NAMES_IN_NOTES = sorted(
    {
        name
        for row in NAME_ROWS
        for name in CODE.findall(row[2])
        if re.match(r"make |lab [a-z]|LLM_|lab/|python lab/|docs/", name) and name != "lab/"
    }
)


def wrong(names: list[str]) -> dict[str, str]:
    """The names that do not exist, each with what is wrong."""
    return {name: problem for name in names if (problem := missing(name))}


def missing(name: str) -> str:
    """What is wrong with a name that the column `here` holds; empty where it exists."""
    words = shlex.split(name)
    if words[0] == "make":
        return missing_in_make(words[1:])
    if words[0] == "lab":
        return missing_flags(words[1], words[2:])
    if words[0] == "pipenv":
        return missing_in_pipenv(words[1:])
    if words[0] == "python":
        return missing_script(words[1], words[2:])
    if name.startswith(config.PREFIX):
        known = {*variables.known_variables(), config.ENV_FILE_VARIABLE}
        return "" if name.split("=")[0] in known else "no setting has this name"
    return "" if (ROOT / name).exists() else "no such file"


def missing_in_make(words: list[str]) -> str:
    """A target and variables of the Makefile."""
    target, *variables = words
    if not re.search(rf"^{re.escape(target)}:.*## ", MAKEFILE, re.MULTILINE):
        return "no target with this name and a line of help"
    unknown = [word for word in variables if not re.search(rf"^{word.split('=')[0]} \?=", MAKEFILE, re.MULTILINE)]
    return f"not variables of the Makefile: {unknown}" if unknown else ""


def missing_flags(stage: str, flags: list[str]) -> str:
    """A command of `lab` that takes these flags."""
    if stage == "--help":
        return ""
    if stage not in cli.COMMANDS:
        return "no stage has this name"
    try:
        cli.parse_flags(stage, flags)
    except UsageError as error:
        return str(error)
    except SystemExit as stopped:  # --help
        return "" if stopped.code == 0 else "does not parse"
    return ""


def missing_in_pipenv(words: list[str]) -> str:
    """`pipenv run PROGRAM ...`, with a program of this environment."""
    if words[:1] != ["run"]:
        return "only `pipenv run` is looked into"
    if not (Path(sys.executable).parent / words[1]).exists():
        return "no such program in the environment"
    if words[1] == "python":
        return missing_script(words[2], words[3:]) if words[2:] else ""
    files = [word for word in words[2:] if not word.startswith("-")]
    return "" if all((ROOT / file).exists() for file in files) else "no such file"


def missing_script(path: str, flags: list[str]) -> str:
    """One of the scripts that users call by file name, with its flags."""
    return missing_flags(SCRIPTS[path], flags) if path in SCRIPTS and (ROOT / path).is_file() else "no such script"


def test_every_name_in_the_column_here_exists() -> None:
    assert wrong(NAMES_HERE) == {}


def test_every_command_file_and_variable_in_a_note_exists() -> None:
    assert wrong(NAMES_IN_NOTES) == {}


@pytest.mark.parametrize(
    "name",
    ["make nothing", "make setup NOTHING=1", "lab nothing", "lab train --nothing", "LLM_NOTHING", "lab/nothing.py"],
)
def test_a_name_that_does_not_exist_is_noticed(name: str) -> None:
    assert missing(name) != ""


def test_every_row_says_what_there_is_or_why_not() -> None:
    for _, here, note in NAME_ROWS:
        if here in {"not yet", "none"}:
            assert note.endswith("."), here
        else:
            assert re.fullmatch(r"`[^`]+`(, `[^`]+`)*", here), here


NAMES_THERE = sections((ROOT / "tests/fixtures/seed_names.txt").read_text(encoding="utf-8"))


def test_there_is_one_table_a_document() -> None:
    assert list(NAME_TABLES) == list(NAMES_THERE)


@pytest.mark.parametrize("heading", NAMES_THERE)
def test_everything_that_a_document_names_has_a_row(heading: str) -> None:
    cells = "\n".join(row[0] for row in NAME_TABLES[heading])
    names = [line for line in NAMES_THERE[heading].splitlines() if line]
    assert [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", cells)] == []


@pytest.mark.parametrize("row", VALUE_ROWS, ids=lambda row: row[0])
def test_the_values_that_were_chosen_are_the_defaults(row: Row) -> None:
    variable, value = row[2].strip("`").split("=")
    assert reference.shown(variables.known_variables()[variable]) == value


# --- the data formats ------------------------------------------------------------------------------------------------

FORMATS = (DOCS / "data-formats.md").read_text(encoding="utf-8")
RECORDS: dict[str, type[Record]] = {
    "Observation": Observation,
    "Chat": Chat,
    "Reject": Reject,
    "Prediction": Prediction,
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_examples_of_the_data_formats_are_records(name: str) -> None:
    text = re.split(rf"^### `{name}`", FORMATS, flags=re.MULTILINE)[1]
    found = re.search(r"```json\n(.+?)```", text, re.DOTALL)
    assert found
    RECORDS[name].model_validate_json(found[1])


def test_the_examples_of_the_session_log_are_read() -> None:
    from lab.extract.sessions import read_call

    lines = re.findall(r'^\{"request".+$', FORMATS, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        json.loads(line)
    assert read_call(lines[0], session_id="a", line=1).output.content == "Order 7 is on its way."
    calls = [read_call(line, session_id="a", line=1).output.tool_calls for line in lines[1:]]
    assert [call[0].function.name for call in calls if call] == ["order_status", "order_status"]


def test_every_reason_for_a_reject_is_explained_and_no_other() -> None:
    explained = {CODE.findall(row[0])[0] for row in table_rows(FORMATS, "reason", "stage", "what it means")}
    assert explained == reasons_in_the_code()


def reasons_in_the_code() -> set[str]:
    """First arguments of the two exceptions that put a record aside."""
    calls = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    raised = [
        call for call in calls if isinstance(call.func, ast.Name) and call.func.id in {"Unusable", "UntrainableError"}
    ]
    return {str(constant.value) for call in raised for constant in chosen(call.args[0])}


def chosen(node: ast.expr) -> list[ast.Constant]:
    """The constants that an argument may be: itself, or the branches of `a if ... else b`."""
    branches = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [branch for branch in branches if isinstance(branch, ast.Constant)]


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "lab").rglob("*.py")))


# --- troubleshooting -------------------------------------------------------------------------------------------------

TROUBLES = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
OWN_ERRORS = [
    text
    for heading, part in sections(TROUBLES).items()
    if heading != "Messages of other programs"
    for text in CODE.findall("\n".join(re.findall(r"^### (.+)$", part, re.MULTILINE)))
]


@cache
def code_texts() -> str:
    """Every text that the code holds (adjacent ones joined, as Python does) and the Makefile, one a line."""
    texts = [
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join([*texts, MAKEFILE])


@pytest.mark.parametrize("message", OWN_ERRORS)
def test_every_message_of_ours_in_troubleshooting_is_in_the_code(message: str) -> None:
    fixed = [part.strip(" ;:'") for part in message.split("…")]
    assert all(part in code_texts() for part in fixed), fixed


@pytest.mark.parametrize("page", ["migration.md", "data-formats.md", "troubleshooting.md"])
def test_every_variable_that_a_page_names_is_a_setting(page: str) -> None:
    groups = {config.variable_name([group]) for group in config.groups()}
    known = {*variables.known_variables(), *groups, config.ENV_FILE_VARIABLE}
    named = re.findall(r"\bLLM_[A-Z_]*[A-Z]\b", (DOCS / page).read_text(encoding="utf-8"))
    assert set(named) - known == set()
