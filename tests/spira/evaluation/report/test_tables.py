"""The tables of a verdict as CSV."""

from __future__ import annotations

import base64
import io

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from spira.evaluation.report import tables
from spira.evaluation.verdict import Calibration, Check, CheckKind
from tests.support.verdicts import make_verdict

CHECK = Check(
    name="noisy_accuracy", title="Noisy test: accuracy", kind=CheckKind.AT_LEAST, passed=True, value=0.9, limit=0.8
)


def test_a_table_has_one_row_a_check() -> None:
    """The numbers of a verdict are read back from the address of the CSV file."""
    verdict = make_verdict().model_copy(update={"checks": (CHECK,)})
    kind, _, content = tables.link(tables.checks(verdict)).partition(";base64,")
    table = pd.read_csv(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:text/csv;charset=utf-8"
    assert list(table["check"]) == [check.name for check in verdict.checks]
    assert list(table["passed"]) == [check.passed for check in verdict.checks]


def test_a_bin_of_the_calibration_is_a_row() -> None:
    """With its interval and its speakers; a verdict of an earlier version has neither."""
    columns = {"predicted": (0.05, 0.95), "observed": (0.0, 1.0), "count": (40, 9)}
    with_intervals = Calibration(**columns, low=(0.0, 0.4), high=(0.26, 1.0), speakers=(12, 4), method="exact")
    noisy = make_verdict().conditions["noisy"]
    for calibration, few in ((with_intervals, [False, True]), (Calibration(**columns), [False, False])):
        conditions = {"noisy": noisy.model_copy(update={"calibration": calibration})}
        rows = tables.calibration(make_verdict().model_copy(update={"conditions": conditions}))
        assert [(row["from"], row["to"], row["observed"]) for row in rows] == [(0.0, 0.1, 0.0), (0.9, 1.0, 1.0)]
        assert [row["few_speakers"] for row in rows] == few
        assert [row["low"] for row in rows] == list(calibration.low or (None, None))


@given(st.text())
def test_no_cell_is_a_formula(text: str) -> None:
    """A spreadsheet computes nothing from the text of a data set."""
    table = pd.read_csv(io.StringIO(tables.csv([{"value": text}])), keep_default_na=False, skip_blank_lines=False)
    assert not str(table["value"].iloc[0]).startswith(("=", "+", "-", "@"))
