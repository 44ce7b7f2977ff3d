"""The `lab` command: one subcommand a stage, every flag a view of a setting (pydantic-settings makes the flags).

Reads flags, environment and `.env` through lab/config.py, runs the stage, prints its summary line and turns errors into
exit codes. Stages are imported when they run, so that `lab --help` stays quick.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from lab.config import Settings

log = logging.getLogger("lab")

NOISY_LIBRARIES = ("datasets", "httpcore", "httpcore2", "httpx", "httpx2", "openai", "peft", "transformers", "trl")
INTERRUPTED = 130  # what a shell reports for Ctrl-C
TERMINATED = 143


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does, the settings groups that it reads, and the module whose function runs it."""

    summary: str
    target: str
    """`module:function`; the function takes Settings and returns an Outcome or None."""
    groups: tuple[str, ...] = ()
    shortcuts: Mapping[str, str] = field(default_factory=dict)
    """Short flags for settings, as the flag's long form without its dashes -> short form."""
    without_torch: bool = False


COMMANDS = {
    "doctor": Command(
        "what this machine has, and what each missing thing switches off", "lab.doctor:run", ("export", "serve")
    ),
    "demo": Command("the whole way on the sample data, from session logs to a served model", "lab.demo:run"),
    "pretrain": Command(
        "make the tiny base model from the sample text", "lab.pretrain:run", ("model", "data", "pretrain")
    ),
    "extract": Command(
        "session logs -> raw/sessions/observations.jsonl",
        "lab.extract:run",
        ("data",),
        {"data.train-files": "pattern"},
        without_torch=True,
    ),
    "format": Command(
        "observations -> interim/chats.jsonl",
        "lab.format:run",
        ("data",),
        {"data.inject-tool-catalog": "catalog"},
        without_torch=True,
    ),
    "check-data": Command(
        "chats -> dataset/{train,eval}.jsonl, checked with the model's tokenizer",
        "lab.check:run",
        ("data", "model", "check"),
        {
            "check.num-examples": "num-examples",
            "check.stats": "stats",
            "data.train-files": "pattern",
            "data.inject-tool-catalog": "catalog",
        },
        without_torch=True,
    ),
    "train": Command("dataset -> runs/NAME/adapter", "lab.train:run", ("model", "data", "lora", "training")),
    "evaluate": Command(
        "held-out answers of base, tuned and quantized model",
        "lab.evaluate:run",
        ("model", "data", "training", "evaluate", "serve"),
    ),
    "merge": Command(
        "adapter + base -> runs/NAME/merged (safetensors, 16 bit)",
        "lab.export.merge:run",
        ("model", "data", "training", "export"),
    ),
    "build-llama": Command(
        "find llama.cpp, or build it from its pinned source", "lab.export.llama_cpp:run_build", ("export",)
    ),
    "quantize": Command(
        "merged -> runs/NAME/gguf/*.gguf",
        "lab.export.quantize:run",
        ("model", "data", "training", "export"),
        without_torch=True,
    ),
    "ollama-serve": Command(
        "serve a GGUF behind an OpenAI-compatible endpoint", "lab.serve:run", ("data", "training", "serve")
    ),
    "chat": Command(
        "talk to the served model", "lab.serve.chat:run", ("data", "training", "serve", "chat"), without_torch=True
    ),
    "report": Command("figures of a run -> reports/NAME/index.html", "lab.report:run", ("model", "data", "training")),
}

STAGES_BEFORE = {
    "check-data": ("lab.extract:run", "lab.format:run", "lab.pretrain:run_tokenizer"),
    "train": ("lab.extract:run", "lab.format:run", "lab.pretrain:run", "lab.check:run"),
}


class Parser(argparse.ArgumentParser):
    """argparse with our wording: an error is a UsageError in one line."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            flag = message.removeprefix("unrecognized arguments: ").split("=")[0].split()[0]
            known = [option for option in self._option_string_actions if option.startswith("--")]
            near = difflib.get_close_matches(flag, known, n=1)
            message = f"{flag} is not a flag" + (f", did you mean {near[0]}?" if near else "")
        raise UsageError(message, where=self.prog, mend=f"`{self.prog} --help` lists the flags")


def main(argv: Sequence[str] | None = None, *, with_stages_before: bool = False) -> int:
    """Run one subcommand and return its exit code: 0 done, 1 failed, 2 wrong usage, 3 a gate said no.

    `with_stages_before` is the manner of the scripts: stages that it builds on and that have not run yet run first.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(overview())
        return 0 if arguments else 2
    name, *flags = arguments
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        if name not in COMMANDS:
            raise UsageError(unknown_command(name))
        return run_command(name, flags, STAGES_BEFORE[name] if with_stages_before else ())
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print(f"\n{name}: stopped, nothing half-written; `make {name}` goes on", file=sys.stderr)
        return TERMINATED if stop.args == (signal.SIGTERM,) else INTERRUPTED


def _stop(number: int, _frame: FrameType | None) -> None:
    """The first signal stops in an orderly way; those after it must not break into that."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def run_command(name: str, flags: Sequence[str], before: Sequence[str] = ()) -> int:
    """Parse flags, load settings, run the stage (and those before it), print a summary line each."""
    from lab import config, variables

    command = COMMANDS[name]
    settings = config.load(parse_flags(name, flags))
    logging.basicConfig(level=settings.log_level, format="%(name)s: %(message)s", stream=sys.stderr)
    quiet_libraries(settings.log_level)
    for warning in variables.unknown_variables(config.environment()):
        log.warning("%s", warning)
    if command.without_torch:
        hide_torch()
    for target in (*before, command.target):
        outcome = find(target)(settings)
        if outcome is not None:
            print(outcome.summary(), flush=True)
    return 0


def quiet_libraries(level: str) -> None:
    """At our normal level the libraries' own remarks are noise; DEBUG shows them."""
    if level != "DEBUG":
        for library in NOISY_LIBRARIES:
            logging.getLogger(library).setLevel(logging.ERROR)


def hide_torch() -> None:
    """Let data commands load tokenizers without paying for PyTorch; the import is theirs, when they need it."""
    from lab import tokens

    tokens.torch_is_hidden = True


def find(target: str) -> Callable[[Settings], Any]:
    """The function that `module:function` names."""
    module, function = target.split(":")
    found: Callable[[Settings], Any] = getattr(importlib.import_module(module), function)
    return found


def parse_flags(name: str, flags: Sequence[str]) -> dict[str, Any]:
    """The settings that the flags give, nested by group; prints help and exits where that is asked for."""
    from pydantic import create_model
    from pydantic_settings import CliSettingsSource

    from lab import config

    command = COMMANDS[name]
    prog = f"lab {name}"
    all_fields = config.Settings.model_fields
    fields = {group: (all_fields[group].annotation, all_fields[group]) for group in command.groups}
    view: Any = create_model("View", __base__=config.Tree, **fields)  # type: ignore[call-overload]
    parser = Parser(prog=prog, description=command.summary, allow_abbrev=False)
    source: Any = CliSettingsSource(
        view,
        cli_prog_name=prog,
        cli_parse_args=list(flags),
        root_parser=parser,
        cli_implicit_flags="dual",
        cli_kebab_case=True,
        cli_show_env_vars=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_shortcuts=dict(command.shortcuts),
        case_sensitive=True,
    )
    given: dict[str, Any] = source()
    return given


def overview() -> str:
    """The help of `lab` itself."""
    lines = [f"  {name:<13} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lab STAGE [flags]",
            "",
            "From what an agent did yesterday to a small model that does it tomorrow.",
            "",
            *lines,
            "",
            "`lab STAGE --help` lists its flags, each with its LLM_ variable and default.",
        ]
    )


def unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"{name!r} is not a stage" + (f", did you mean {near[0]}?" if near else "; `lab --help` lists them")


if __name__ == "__main__":
    raise SystemExit(main())
