"""Which parameters an optimizer has, with which settings, and what it does to them."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import RecordingNet, TinyRun, make_phase
from torch import nn

from deephash.core.errors import UserError
from deephash.training.optimization import PhaseOptimization, group_parameters, set_muon_dtype

LINEAR = ["backbone.backbone.linear.weight", "backbone.backbone.linear.bias"]
NORM = ["backbone.backbone.norm.weight", "backbone.backbone.norm.bias"]
HEAD = ["method.head.weight", "method.head.bias"]
CLASSIFIER = ["classifier.weight", "classifier.bias"]


def make_parameters() -> dict[str, nn.Parameter]:
    return {
        f"{part}.{name}": parameter
        for part in ("stem", "stem2", "stages.0", "stages.1", "head")
        for name, parameter in nn.Linear(2, 2).named_parameters()
    }


def group_names(overrides: dict[str, dict[str, Any]]) -> list[tuple[list[str], dict[str, Any]]]:
    """The groups with names in place of parameters."""
    parameters = make_parameters()
    names = {id(parameter): name for name, parameter in parameters.items()}
    groups = group_parameters(parameters, overrides, "training.hash.param_groups")
    return [
        ([names[id(p)] for p in group["params"]], {k: v for k, v in group.items() if k != "params"})
        for group in groups
    ]


def test_without_overrides_there_is_a_plain_list() -> None:
    parameters = make_parameters()
    assert group_parameters(parameters, {}, "here") == list(parameters.values())


def test_no_groups_are_an_empty_dictionary_or_none() -> None:
    for groups in ({}, None):
        phase = make_phase("hash", param_groups=groups)
        optimization = PhaseOptimization("training.hash", phase, torch.float32)
        (group,) = optimization.make_optimizer(make_parameters()).param_groups
        assert len(group["params"]) == 10


def test_a_prefix_ends_where_a_part_of_the_name_ends() -> None:
    rest, stem = group_names({"stem": {"lr": 0.1, "weight_decay": 0.0}})
    assert stem == (["stem.weight", "stem.bias"], {"lr": 0.1, "weight_decay": 0.0})
    assert rest[0][:2] == ["stem2.weight", "stem2.bias"]
    assert len(rest[0]) == 8
    assert rest[1] == {}


def test_the_longest_prefix_decides_in_whatever_order_they_are_given() -> None:
    overrides = {"stages": {"lr": 1.0}, "stages.1": {"lr": 2.0}, "stages.1.bias": {"lr": 3.0}}
    for prefixes in (list(overrides), list(overrides)[::-1]):
        groups = group_names({prefix: overrides[prefix] for prefix in prefixes})
        by_rate = {settings.get("lr"): names for names, settings in groups}
        assert by_rate[1.0] == ["stages.0.weight", "stages.0.bias"]
        assert by_rate[2.0] == ["stages.1.weight"]
        assert by_rate[3.0] == ["stages.1.bias"]
        assert len(by_rate[None]) == 6


def test_a_group_without_a_rest_has_no_empty_group() -> None:
    prefixes = ("stem", "stem2", "stages", "head")
    groups = group_names({prefix: {"lr": 0.1} for prefix in prefixes})
    assert [names[0].partition(".")[0] for names, _ in groups] == list(prefixes)


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("stage", r"Did you mean 'stages'\?"),
        ("stages.2", r"Did you mean 'stages\.[01]'\?"),
        ("backbone", "Valid: head, stages, stages.0, stages.1, stem, stem2."),
    ],
)
def test_a_prefix_of_nothing_names_the_nearest(prefix: str, hint: str) -> None:
    message = rf"training\.hash\.param_groups\.{prefix}: no trained parameter's name begins with"
    with pytest.raises(UserError, match=message) as error:
        group_names({prefix: {"lr": 0.1}})
    assert re.search(hint, str(error.value))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 0.1}, r"lrr: SGD has no such setting\. Did you mean 'lr'\?"),
        ({"lr": -1.0}, r"Invalid learning rate: -1\.0"),
        ({"weight_decay": "none"}, "weight_decay=none"),
        ({"momentum": 2}, r"momentum=2: must be less than 1\."),
        ({"params": []}, r"params is no setting of the optimizer\. Valid: lr, momentum, "),
        ({"_target_": "torch.optim.Adam"}, r"_target_ is no setting of the optimizer\. Valid: lr"),
        ({"_partial_": True}, r"_partial_ is no setting of the optimizer\. Valid: lr"),
    ],
)
def test_settings_of_a_group_that_the_optimizer_refuses_are_named_before_the_training(
    settings: dict[str, Any], message: str
) -> None:
    phase = make_phase("hash", param_groups={"method.head": settings})
    with pytest.raises(UserError, match=rf"training\.hash\.param_groups\.method\.head.*{message}"):
        PhaseOptimization("training.hash", phase, torch.float32)


def return_value(step: int, total_steps: int, *, value: Any = None) -> Any:
    return value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"_target_": "fractions.Fraction"}}, "optimizer={}: fractions.Fraction re"),
        ({"optimizer": {"_target_": "torch.nn.ParameterList"}}, "it must make a .*Optimizer"),
        ({"scheduler": {"_target_": f"{__name__}.return_value"}}, "returns None for step 0 of 1"),
        (
            {"scheduler": {"_target_": f"{__name__}.return_value", "value": math.nan}},
            "returns nan for step 0 of 1, not a finite number",
        ),
    ],
)
def test_what_is_no_optimizer_or_schedule_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"^training\.hash\..*{message}"):
        PhaseOptimization("training.hash", make_phase("hash", **settings), torch.float32)


def test_a_phase_without_parameters_is_refused() -> None:
    optimization = PhaseOptimization("training.init", make_phase("hash"), torch.float32)
    with pytest.raises(UserError, match=r"^training\.init: what this phase trains has no param"):
        optimization.make_optimizer({})


@pytest.mark.parametrize(
    ("objective", "trains", "names"),
    [
        ("classify", "all", LINEAR + NORM + CLASSIFIER),
        ("hash", "head", HEAD),
        ("hash", "all", LINEAR + NORM + HEAD),
    ],
    ids=["classify", "head only", "joint"],
)
@pytest.mark.parametrize(
    ("optimizer", "weight_decay"),
    [
        ({"_target_": "torch.optim.SGD", "lr": 0.01, "weight_decay": 5e-4}, 5e-4),
        ({"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.05}, 0.05),
        ({"_target_": "torch.optim.Adam", "lr": 0.01}, 0.0),
        ({"_target_": "timm.optim.Muon", "lr": 0.01, "weight_decay": 0.07}, 0.07),
    ],
    ids=["SGD", "AdamW", "Adam", "Muon"],
)
def test_the_trained_parameters_have_the_weight_decay_of_the_settings(
    objective: str,
    trains: str,
    names: list[str],
    optimizer: dict[str, Any],
    weight_decay: float,
    tmp_path: Path,
) -> None:
    run = TinyRun(tmp_path)
    run.run({"phase": make_phase(objective, trains=trains, optimizer=optimizer, epochs=1)})
    (recorder,) = run.recorders
    (group,) = recorder.groups[0]
    assert group["params"] == names
    assert group["weight_decay"] == weight_decay


def test_groups_have_their_own_weight_decay(tmp_path: Path) -> None:
    optimizer = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.05}
    overrides = {"backbone.backbone.norm": {"weight_decay": 0.0}}
    run = TinyRun(tmp_path)
    run.run({"hash": make_phase("hash", optimizer=optimizer, param_groups=overrides)})
    decays = [(g["params"], g["weight_decay"]) for g in run.recorders[0].groups[0]]
    assert decays == [(LINEAR + HEAD, 0.05), (NORM, 0.0)]


@pytest.mark.parametrize("trains", ["head", "all"])
def test_weights_decay_by_the_rate_where_nothing_else_moves_them(
    trains: str, tmp_path: Path
) -> None:
    """AdamW multiplies each weight by 1 - rate * decay at each step; here without a gradient."""
    optimizer = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.5}
    scheduler = {"_target_": "deephash.training.schedules.linear", "warmup": 0.5}
    phase = make_phase("hash", trains=trains, optimizer=optimizer, scheduler=scheduler)
    run = TinyRun(tmp_path)
    run.model.method.loss = lambda batch: {"loss": batch.logits.sum() * 0}  # type: ignore
    before = run.weights()
    run.run({"hash": phase})
    after = run.weights()
    factors = [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]
    shrunk = math.prod(1 - 0.01 * 0.5 * factor for factor in factors)
    for name in (LINEAR + NORM if trains == "all" else []) + HEAD:
        torch.testing.assert_close(after[name], before[name] * shrunk, rtol=1e-12, atol=0)
    if trains == "head":
        for name in LINEAR + NORM:
            assert torch.equal(after[name], before[name])


def weight_after_a_step(dtype: torch.dtype) -> torch.Tensor:
    """A matrix after one step of a Muon that orthogonalises in this type."""
    from timm.optim import Muon

    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.zeros(16, 40))
    weight.grad = torch.randn(16, 40, generator=generator)
    set_muon_dtype(dtype)
    Muon([weight], lr=1.0).step()
    return weight.detach()


def test_muon_computes_in_the_type_that_is_set() -> None:
    exact = weight_after_a_step(torch.float64)
    errors = {
        dtype: (weight_after_a_step(dtype) - exact).norm() / exact.norm()
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert errors[torch.float32] < 1e-5
    assert errors[torch.bfloat16] > 1e-3


def test_a_phase_with_muon_sets_its_type() -> None:
    from timm.optim import muon

    phase = make_phase(optimizer={"_target_": "timm.optim.Muon", "lr": 0.01})
    for dtype in (torch.bfloat16, torch.float32):
        optimization = PhaseOptimization("training.pretrain", phase, dtype)
        optimization.make_optimizer(dict(RecordingNet().named_parameters()))
        assert muon.zeropower_via_newtonschulz.keywords == {"dtype": dtype}
