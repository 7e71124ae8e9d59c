"""The status page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from spira.delivery.page.render import render
from spira.delivery.status import TargetStatus
from spira.language import Language
from tests.spira.delivery.page.conftest import build, status_of
from tests.support.browser import WIDTHS_PX, opened
from tests.support.ledger_builder import LedgerBuilder

pytestmark = pytest.mark.slow

LONG = "target kserve: the cluster refuses the request " + "unbrokenword" * 30


@pytest.fixture
def file(full_ledger: LedgerBuilder, tmp_path: Path) -> Path:
    """A page with everything, problems too."""
    return write(full_ledger, tmp_path, Language.ENGLISH)


def write(full_ledger: LedgerBuilder, tmp_path: Path, language: Language) -> Path:
    """Write the page in a language."""
    other = TargetStatus(version="2", ready=True, message="", digest="package 2")
    status = status_of(
        full_ledger,
        serving={**status_of(full_ledger).serving, "kserve": other, "inference-service": None},
        troubles=("model repository: MLflow cannot be reached", LONG),
    )
    path = tmp_path / "index.html"
    path.write_text(render(build(full_ledger, status), language=language))
    return path


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", WIDTHS_PX)
def test_the_page_fits_and_is_accessible(
    full_ledger: LedgerBuilder, width_px: int, scheme: Literal["light", "dark"], language: Language, tmp_path: Path
) -> None:
    """On a screen and on a phone, light and dark: no sideways scrolling, no request, no serious finding of axe."""
    file = write(full_ledger, tmp_path, language)
    with opened(file.as_uri(), width_px, scheme) as page:
        page.picture(tmp_path / f"page-{width_px}-{scheme}-{language}.png")
        assert page.overflow_px == 0
        assert page.requests == [file.as_uri()]
        assert page.findings() == []
        background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_person_can_open_what_changed(file: Path) -> None:
    with opened(file.as_uri(), WIDTHS_PX[0]) as page:
        setting = page.page.get_by_text("training.learning_rate: 0.002 -> 0.001")
        assert not setting.is_visible()
        page.page.get_by_text("training.learning_rate 0.002").click()
        assert setting.is_visible()
        assert page.page.get_by_role("link", name="open the report in MLflow").count() == 4
