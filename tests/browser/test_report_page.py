"""The report in a real browser: opens from a file, obeys no data, and filters by a drag."""

from __future__ import annotations

import pytest

from detbuild.report.document import document
from detbuild.report.page import render
from detbuild.report.sources import read_all
from tests.browser import chromium
from tests.synthetic import HOSTILE, experiment

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="chromium is not installed"),
]
BRUSH = "['left', 'top'].map((side) => document.getElementById('parallel').getBoundingClientRect()[side])"


@pytest.fixture
def page(tmp_path):
    pytest.importorskip("websockets")
    with chromium.browser(tmp_path / "profile") as opened:
        opened.look(1440, 1400)
        yield opened


def written(tmp_path, trials, **options):
    file = tmp_path / "report.html"
    file.write_bytes(
        render(document(read_all([experiment(tmp_path / "home", trials, **options)]), made=1.7e9 + 999))
    )
    return file


def test_hostile_names_are_shown_as_text_and_nothing_is_fetched(page, tmp_path):
    page.open(written(tmp_path, 5, name=HOSTILE))
    assert "owned" not in str(page.evaluate("document.title")).split("document.title")[0]
    shown = str(page.evaluate("document.getElementById('title').textContent"))
    assert '</script><script>document.title="owned"' in shown
    assert "\\u202e" in shown
    assert "\u202e" not in shown
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.troubles() == []


def test_a_drag_along_an_axis_filters_the_table_and_can_be_cleared(page, tmp_path):
    page.open(written(tmp_path, 50))
    assert page.evaluate("document.querySelectorAll('#trial-rows tr').length") == 50
    page.evaluate("document.getElementById('parallel').scrollIntoView()")
    left, top = page.evaluate(BRUSH)
    page.mouse("mousePressed", left + 47, top + 40)
    page.mouse("mouseMoved", left + 47, top + 150)
    page.mouse("mouseReleased", left + 47, top + 150)
    rows = page.evaluate("document.querySelectorAll('#trial-rows tr').length")
    assert 0 < rows < 50
    assert page.evaluate("document.getElementById('count').textContent") == f"{rows} of 50 trials"
    page.evaluate("document.getElementById('clear').click()")
    assert page.evaluate("document.querySelectorAll('#trial-rows tr').length") == 50


def test_the_table_sorts_filters_and_opens_a_trial_with_its_log(page, tmp_path):
    page.open(written(tmp_path, 5))
    first = "document.querySelector('#trial-rows tr td').textContent"
    page.evaluate("document.querySelector('#trial-head button').click()")
    assert page.evaluate(first) == "1"
    page.evaluate("document.querySelector('#trial-head button').click()")
    assert page.evaluate(first) == "5"
    page.evaluate("document.querySelector('#trial-rows tr').click()")
    page.picture(tmp_path / "trial.png")
    assert (tmp_path / "trial.png").stat().st_size > 10_000
    log = str(page.evaluate("document.getElementById('trial-log').textContent"))
    assert "epoch 1" in log
    assert "hunter2" not in log


def test_500_trials_of_1000_points_open_in_under_two_seconds(page, tmp_path):
    file = written(tmp_path, 500, points=1_000)
    assert min(page.open(file) for _ in range(3)) < 2
    assert page.troubles() == []


def test_the_curve_under_the_pointer_is_named_and_stands_out_in_the_table(page, tmp_path):
    page.open(written(tmp_path, 5))
    left, top = page.evaluate(BRUSH.replace("parallel", "curves"))
    for down in range(20, 340, 12):
        page.mouse("mouseMoved", left + 400, top + down)
        if not page.evaluate("document.getElementById('curve-tip').hidden"):
            break
    tip = str(page.evaluate("document.querySelector('#curve-tip b').textContent"))
    assert tip in {f"trial {number}" for number in range(1, 6)}
    assert page.evaluate("document.querySelector('tr.hover td').textContent") == tip.removeprefix("trial ")
