from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import determined as det

FRAMEWORKS = {"torch", "tensorflow", "keras", "docker", "detbuild", "numpy"}


def test_importing_it_imports_no_framework() -> None:
    code = "import sys, determined; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) & FRAMEWORKS == set()


def test_its_parts_are_there_without_importing_them_by_name() -> None:
    pytest.importorskip("torch")
    code = "import determined as det; det.pytorch.PyTorchTrial; det.experimental.create; det.import_from_path"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'determined' has no attribute 'kreas'"):
        _ = det.kreas


def test_estimators_name_their_replacement() -> None:
    with pytest.raises(ImportError, match="does not support") as caught:
        _ = det.estimator
    assert "PyTorchTrial" in caught.value.hint


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("transformers", "report_training_metrics in on_log"),
        ("lightning.experimental", "Lightning's CSVLogger"),
        ("pytorch.deepspeed", "determined.pytorch.PyTorchTrial"),
    ],
)
def test_a_part_that_is_not_carried_names_what_does_its_work(module: str, instead: str) -> None:
    with pytest.raises(ImportError, match="detbuild does not support") as caught:
        importlib.import_module(f"determined.{module}")
    assert instead in caught.value.hint


def test_every_name_that_it_lists_can_be_had() -> None:
    pytest.importorskip("torch")
    assert [name for name in dir(det) if getattr(det, name, None) is None] == []


def test_invalid_hyperparameters_need_no_message() -> None:
    assert (str(det.InvalidHP()), str(det.InvalidHP(msg="too wide"))) == ("...", "too wide")


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (det.Constant(32), {"type": "const", "val": 32}),
        (det.Constant(value="relu"), {"type": "const", "val": "relu"}),
        (det.Integer(1, 8), {"type": "int", "minval": 1, "maxval": 8}),
        (
            det.Double(minval=0.1, maxval=0.5, count=3),
            {"type": "double", "minval": 0.1, "maxval": 0.5, "count": 3},
        ),
        (det.Log(-4, -1), {"type": "log", "minval": -4, "maxval": -1, "base": 10.0}),
        (det.Categorical(("a", "b")), {"type": "categorical", "vals": ["a", "b"]}),
    ],
)
def test_hyperparameters_are_what_the_config_has(made: object, written: object) -> None:
    assert made == written
