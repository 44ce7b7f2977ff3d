"""The errors that a user can mend. Every other exception is a bug and keeps its traceback.

Exit codes of the `lab` command: 0 done, 1 failed, 2 wrong usage, 3 a gate said no.
"""

from __future__ import annotations


class LabError(Exception):
    """One line in up to three parts: what is wrong, where (file:line, variable, record id), what to do."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = what, where, mend
        line = f"{where}: {what}" if where else what
        super().__init__(" ".join(f"{line}; {mend}".split()) if mend else " ".join(line.split()))


class UsageError(LabError):
    """A flag, variable or argument that cannot be: exit code 2."""

    exit_code = 2


class GateError(LabError):
    """The work was done and a check of its result says no: exit code 3."""

    exit_code = 3
