"""The report in a browser: at a desk and on a phone, light and dark, without findings of an accessibility check."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from spira.evaluation.report.page import Content
from tests.spira.evaluation.report.test_page import LINEAGE, Case, case
from tests.support.browser import WIDTHS_PX, opened

pytestmark = [pytest.mark.integration, pytest.mark.slow]

__all__ = ["case"]  # the fixture


@pytest.fixture(scope="module")
def address(case: Case, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with voices."""
    page = tmp_path_factory.mktemp("page") / "report.html"
    case.page(page, LINEAGE, Content(has_voices=True))
    return page.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", WIDTHS_PX)
def test_a_report_can_be_used_by_everyone(
    address: str, width_px: int, scheme: Literal["light", "dark"], tmp_path: Path
) -> None:
    """The accessibility check finds nothing of moderate impact or more, and nothing is wider than the screen."""
    with opened(address, width_px, scheme) as page:
        print(page.picture(tmp_path / f"report-{width_px}-{scheme}.png"))
        assert page.findings() == []
        assert page.overflow_px == 0
        assert [request for request in page.requests[1:] if not request.startswith("data:")] == []
