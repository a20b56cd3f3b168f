"""State of every layout and type that torch saves and loads: counted, copied, saved, restored, compared."""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from determined._contract.run_info import Length
from determined.pytorch._checkpoint import HostCopy, _same_value, freeze, thaw
from tests.unit.harness.pytorch.driving import TinyTrial

if TYPE_CHECKING:
    from tests.unit.harness.pytorch.driving import Folder

DENSE = torch.tensor([[0.0, 1.5, 0.0, 2.0], [3.0, 0.0, math.nan, -0.0]])


class Tagged(torch.Tensor):
    """A subclass without anything of its own."""


def float_of(name: str) -> torch.Tensor:
    return DENSE.nan_to_num().to(getattr(torch, name))


def tensors() -> dict[str, torch.Tensor]:
    made = {
        "coo": DENSE.to_sparse(),
        "coo, not coalesced": torch.sparse_coo_tensor([[0, 0, 1]], [1.0, 2.0, 3.0], (4,)),
        "coo, empty": torch.zeros(3, 3).to_sparse(),
        "csr": DENSE.to_sparse_csr(),
        "csc": DENSE.to_sparse_csc(),
        "bsr": DENSE.to_sparse_bsr((1, 2)),
        "bsc": DENSE.to_sparse_bsc((1, 2)),
        "quantized": torch.quantize_per_tensor(torch.randn(4), 0.1, 3, torch.quint8),
        "quantized by channel": torch.quantize_per_channel(
            torch.randn(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8
        ),
        "complex": torch.complex(DENSE, DENSE),
        "conjugate": torch.complex(DENSE, DENSE).conj(),
        "bool": DENSE > 1,
        "whole": torch.arange(6).reshape(2, 3),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(math.nan),
        "transposed": DENSE.t(),
        "strided": torch.arange(20.0)[1::3],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "subclass": DENSE.as_subclass(Tagged),
        "parameter": nn.Parameter(DENSE),
    }
    names = ("float16", "bfloat16", "float64", "uint8", "int8", "uint16", "uint32", "uint64")
    names += ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "complex32")
    return {**made, **{name: float_of(name) for name in names if hasattr(torch, name)}}


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls some of these layouts young
    KINDS = list(tensors())


def through_torch(value: Any, *, safe: bool = True) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=safe)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_is_copied_saved_and_loaded_as_torch_does_it(kind: str) -> None:
    tensor = tensors()[kind].detach()
    assert _same_value(through_torch(tensor, safe=False), tensor)
    copied = HostCopy().copy_of({"x": [tensor]})["x"][0]
    assert _same_value(copied, tensor)
    assert _same_value(thaw(through_torch(freeze({"x": copied}, "x")))["x"], tensor)
    assert HostCopy().fits({"x": tensor})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_differ_are_not_taken_for_equal(kind: str) -> None:
    tensor = tensors()[kind].detach()
    others = [other.detach() for name, other in tensors().items() if name not in {kind, "parameter"}]
    same = [other for other in others if _same_value(tensor, other)]
    assert [(other.dtype, tuple(other.shape)) for other in same if other.dtype != torch.float32] == []
    if not tensor.is_nested and tensor.layout is torch.strided and not tensor.is_quantized and tensor.numel():
        flipped = tensor.clone().reshape(-1)
        flipped[0] = 1 if flipped[0] == 0 or flipped[0] != flipped[0] else 0
        assert not _same_value(flipped.reshape(tensor.shape), tensor)


def test_tensors_that_share_memory_share_it_in_the_copy_and_the_copy_stays_as_it_was() -> None:
    whole = torch.arange(10.0)
    state = {"whole": whole, "part": whole[2:5], "again": whole, "turned": whole.reshape(2, 5).t()}
    copied = HostCopy().copy_of(state)
    whole += 1
    assert torch.equal(copied["part"], torch.tensor([2.0, 3.0, 4.0]))
    copied["whole"][2] = 7
    assert copied["part"][0] == copied["again"][2] == copied["turned"][2, 0] == 7
    assert len(through_bytes(copied)) < 2 * len(through_bytes({"whole": whole})) + 1000


def through_bytes(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_a_tensor_without_data_is_kept_without_data() -> None:
    copied = HostCopy().copy_of({"x": torch.empty(3, device="meta")})
    assert copied["x"].is_meta


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["coo", "csr", "complex", "uint16", "float8_e5m2", "expanded", "bool", "one"]
)
def test_a_trial_with_such_a_buffer_trains_and_restores_it(folder: Folder, kind: str) -> None:
    class Trial(TinyTrial):
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            self.model.register_buffer("extra", tensors()[kind].clone())

    config = {"min_checkpoint_period": {"batches": 2}}
    first = folder.drive(Trial, config=config, max_length=Length("batches", 4))
    assert first.checkpoints == [2, 4]
    saved = folder.state(first.newest)["models_state_dict"][0]["extra"]
    assert _same_value(saved, tensors()[kind].clone())
    resumed = folder.drive(Trial, max_length=Length("batches", 6), checkpoints=(first.newest,))
    assert resumed.checkpoints == [6]
    folder.drive(Trial, test_mode=True)
