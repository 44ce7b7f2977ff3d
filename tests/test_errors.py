from __future__ import annotations

import pytest

from lab.errors import GateError, LabError, UsageError


def test_an_error_says_where_what_and_how_to_mend_it_in_one_line() -> None:
    error = LabError("not there\nyet", where="data/x.jsonl:3", mend="`make format`\n writes it")
    assert str(error) == "data/x.jsonl:3: not there yet; `make format` writes it"


def test_an_error_without_place_or_cure_is_its_message_alone() -> None:
    assert str(LabError("broken   thing")) == "broken thing"


@pytest.mark.parametrize(("kind", "code"), [(LabError, 1), (UsageError, 2), (GateError, 3)])
def test_each_kind_of_error_has_its_exit_code(kind: type[LabError], code: int) -> None:
    assert kind("x").exit_code == code
