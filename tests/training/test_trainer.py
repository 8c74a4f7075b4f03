import torch
from timm.optim import Muon

from deephash.training.trainer import set_muon_dtype


def stepped(dtype: torch.dtype) -> torch.Tensor:
    """A matrix after one step of a Muon that computes in this type."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 40))
    weight.grad = torch.randn(16, 40, generator=generator)
    set_muon_dtype(dtype)
    Muon([weight], lr=1.0).step()
    return weight.detach()


def test_muon_computes_in_the_type_that_it_is_told() -> None:
    exact = stepped(torch.float64)
    errors = {
        dtype: (stepped(dtype) - exact).norm() / exact.norm()
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert errors[torch.float32] < 1e-5
    assert errors[torch.bfloat16] > 1e-3
