"""The report in a real browser: opens from a file, obeys no data, and filters by a drag."""

from __future__ import annotations

import csv
import io
import json

import pytest

from detbuild.api.report import read_all
from detbuild.config.parse import config_from_mapping
from detbuild.report.document import document
from detbuild.report.page import render
from tests.browser import chromium
from tests.synthetic import HOSTILE, experiment, hparams

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="chromium is not installed"),
]
FORMULA = '=cmd|"<x>'
CLIPBOARD = (
    "Object.defineProperty(navigator, 'clipboard', "
    "{value: {writeText: async (text) => { window.taken = text; }}})"
)
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


def rows(page):
    return page.evaluate(
        "[...document.querySelectorAll('#trial-rows tr')].map((row) => row.cells[0].textContent)"
    )


def typed(page, text):
    page.evaluate(
        f"(() => {{ const box = document.getElementById('text-filter'); box.value = {json.dumps(text)}; "
        "box.dispatchEvent(new Event('input')); })()"
    )


def test_the_filter_takes_words_and_comparisons(page, tmp_path):
    page.open(written(tmp_path, 50))
    typed(page, "layers<4 optimizer.name=adam")
    wanted = [
        n for n in range(1, 51) if hparams(n)["layers"] < 4 and "adam" in hparams(n)["optimizer"]["name"]
    ]
    assert sorted(map(int, rows(page))) == wanted
    typed(page, "batches>1000000")
    assert rows(page) == []


def test_selected_trials_are_compared_and_what_differs_is_marked(page, tmp_path):
    page.open(written(tmp_path, 5))
    page.evaluate(
        "[...document.querySelectorAll('#trial-rows input')].slice(0, 2).forEach((box) => box.click())"
    )
    named = page.evaluate(
        "[...document.querySelectorAll('#compare thead button')].map((one) => one.textContent)"
    )
    assert named == [f"trial {name}" for name in rows(page)[:2]]
    marked = page.evaluate(
        "[...document.querySelectorAll('#compare tr.differs th')].map((one) => one.textContent)"
    )
    assert "lr" in marked
    assert "batches" not in marked
    page.evaluate("document.getElementById('compare-clear').click()")
    assert page.evaluate("document.getElementById('compare-card').hidden")


def test_the_trials_of_a_chart_are_reached_by_keys_and_said(page, tmp_path):
    page.open(written(tmp_path, 5))
    page.evaluate("document.getElementById('curves').focus()")
    said = []
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", " ", "Enter"):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        page.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        said.append(page.evaluate("document.getElementById('spoken').textContent"))
    assert said[0].endswith("rank 1")
    assert said[0] == said[2] != said[1]
    assert not page.evaluate("document.getElementById('compare-card').hidden")
    assert page.evaluate("document.activeElement.id") == "trial-title"


def test_the_table_is_taken_along_as_csv_that_no_spreadsheet_runs(page, tmp_path):
    page.open(written(tmp_path, 20, name=FORMULA))
    page.evaluate("URL.createObjectURL = (blob) => { window.taken = blob.text(); return 'data:,'; }")
    page.evaluate("HTMLAnchorElement.prototype.click = () => {}")
    page.evaluate("document.getElementById('table-csv').click()")
    (head, *lines) = csv.reader(io.StringIO(str(page.evaluate("window.taken"))))
    assert head[:3] == ["trial", "state", "best validation_loss"]
    assert {int(line[0]) for line in lines} == set(range(1, 21))
    assert all(float(line[head.index("lr")]) == hparams(int(line[0]))["lr"] for line in lines)
    cells = {cell for line in lines for cell in line}
    assert f"'{FORMULA}" in cells
    assert FORMULA not in cells


def test_the_config_of_a_trial_is_copied_and_is_one_that_detbuild_takes(page, tmp_path):
    page.open(written(tmp_path, 5))
    page.evaluate(CLIPBOARD)
    page.evaluate("document.querySelector('#trial-rows tr').click()")
    page.evaluate("document.getElementById('copy-config').click()")
    taken = json.loads(str(page.evaluate("window.taken")))
    config = config_from_mapping(taken, source="the page")
    assert config.searcher.name == "single"
    best = hparams(int(rows(page)[0]))
    assert config.hyperparameters["lr"].val == best["lr"]
    assert taken["hyperparameters"]["optimizer"]["name"] == {
        "type": "const",
        "val": best["optimizer"]["name"],
    }


def test_paper_is_white_whatever_the_screen_is(page, tmp_path):
    page.open(written(tmp_path, 5))
    page.look(1440, 1000, dark=True)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    ink = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--card').trim()")
    assert ink == "#ffffff"
    assert page.evaluate("getComputedStyle(document.getElementById('table-csv')).display") == "none"
