"""Learning rates: the closed forms, and the rates that the optimizer has at each step."""

import math
from pathlib import Path

import numpy as np
import pytest
from tiny_training import TinyRun, make_phase

from deephash.core.errors import UserError
from deephash.training.optimization import PhaseOptimization
from deephash.training.schedules import constant, cosine, linear

WARMUPS = [0.0, 0.1, 0.2, 0.5, 1.0]


def expected_factors(name: str, total: int, warmup: float) -> list[float]:
    """By interpolation: 0 one step before the first, 1 at the last step of the warm-up."""
    steps = np.arange(total)
    peak = max(1, round(warmup * total)) - 1
    if name == "constant":
        return np.interp(steps, [-1, peak, total], [0, 1, 1]).tolist()
    if name == "linear":
        return np.interp(steps, [-1, peak, total], [0, 1, 0]).tolist()
    rise = np.interp(steps, [-1, peak], [0, 1])
    fall = np.interp(steps, [peak, total], [0, math.pi])
    return np.where(steps <= peak, rise, (np.cos(fall) + 1) / 2).tolist()


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("total", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("schedule", [linear, cosine, constant])
def test_every_step_has_the_closed_form(schedule, total: int, warmup: float) -> None:
    factors = [schedule(step, total, warmup=warmup) for step in range(total)]
    expected = expected_factors(schedule.__name__, total, warmup)
    assert factors == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_factors_of_ten_steps_by_hand() -> None:
    def factors(schedule, warmup: float) -> list[float]:
        return [schedule(step, 10, warmup=warmup) for step in range(11)]

    rise = [0.25, 0.5, 0.75, 1.0]
    assert factors(constant, 0.4) == rise + [1.0] * 7
    fall = [6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0.0]
    assert factors(linear, 0.4) == pytest.approx(rise + fall)
    # (1 + cos(pi n / 7)) / 2 for n from 1 to 7.
    cosines = [0.950484, 0.811745, 0.611260, 0.388740, 0.188255, 0.049516, 0.0]
    assert factors(cosine, 0.4) == pytest.approx(rise + cosines, abs=1e-6)


@pytest.mark.parametrize("warmup", [-0.1, 1.5, 3, math.nan])
@pytest.mark.parametrize("schedule", [linear, cosine, constant])
def test_a_warmup_out_of_range_is_refused(schedule, warmup: float) -> None:
    with pytest.raises(ValueError, match=f"warmup={warmup}: give a fraction of the steps, 0 to 1"):
        schedule(0, 10, warmup=warmup)


def test_a_warmup_out_of_range_is_refused_before_the_training() -> None:
    scheduler = {"_target_": "deephash.training.schedules.cosine", "warmup": 2.0}
    phase = make_phase(scheduler=scheduler)
    with pytest.raises(UserError, match=r"training\.hash\.scheduler\.warmup=2\.0: give a fraction"):
        PhaseOptimization("training.hash", phase, muon_dtype=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("trains", ["pretrain", "init", "hash"])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_the_optimizer_has_the_rate_of_the_schedule_at_every_step(
    name: str, trains: str, tmp_path: Path
) -> None:
    scheduler = {"_target_": f"deephash.training.schedules.{name}", "warmup": 0.25}
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.02}
    objective = "classify" if trains == "pretrain" else "hash"
    phase = make_phase(
        objective,
        trains="head" if trains == "init" else "all",
        scheduler=scheduler,
        optimizer=optimizer,
        epochs=3,
    )
    run = TinyRun(tmp_path)
    run.run({trains: phase})
    (recorder,) = run.recorders
    rates = [group["lr"] for (group,) in recorder.groups]
    expected = [0.02 * factor for factor in expected_factors(name, total=12, warmup=0.25)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_parameter_groups_keep_their_own_rates(tmp_path: Path) -> None:
    phase = make_phase(
        "hash",
        scheduler={"_target_": "deephash.training.schedules.linear", "warmup": 0.5},
        param_groups={"backbone": {"lr": 0.001}, "method.head.bias": {"lr": 0.3}},
    )
    run = TinyRun(tmp_path)
    run.run({"hash": phase})
    (recorder,) = run.recorders
    factors = expected_factors("linear", total=8, warmup=0.5)
    for groups, factor in zip(recorder.groups, factors, strict=True):
        rates = {tuple(group["params"]): group["lr"] for group in groups}
        assert rates == {
            ("method.head.weight",): pytest.approx(0.05 * factor),
            (
                "backbone.backbone.linear.weight",
                "backbone.backbone.linear.bias",
                "backbone.backbone.norm.weight",
                "backbone.backbone.norm.bias",
            ): pytest.approx(0.001 * factor),
            ("method.head.bias",): pytest.approx(0.3 * factor),
        }
