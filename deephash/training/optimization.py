"""Optimizers and learning-rate schedules of a phase, built from its settings."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from inspect import signature
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from deephash.core.errors import UserError, did_you_mean
from deephash.core.instantiate import Node, build, build_instance
from deephash.training.settings import PhaseSettings

Schedule = Callable[[int, int], float]  # (step, total steps) to the factor of the rate


class PhaseOptimization:
    """Makes a phase's optimizer, and holds its schedule.

    Args:
        place: of the phase in the configuration, for errors: `training.hash`.
        phase: its settings.
        muon_dtype: type that Muon orthogonalises in, see `set_muon_dtype`.

    Raises:
        UserError: the optimizer or schedule does not exist, or refuses its settings.
    """

    def __init__(self, place: str, phase: PhaseSettings, muon_dtype: torch.dtype) -> None:
        self.place = place
        self.param_groups = phase.param_groups or {}
        self._make = build(f"{place}.optimizer", phase.optimizer, partial=True)
        self.schedule: Schedule = build(f"{place}.scheduler", phase.scheduler, partial=True)
        # Both are tried, so that what they refuse is known before anything is trained.
        _try_optimizer(f"{place}.optimizer", phase.optimizer)
        with _name_refused_settings(f"{place}.scheduler", phase.scheduler):
            factor = build(f"{place}.scheduler", phase.scheduler, 0, 1)
        if not isinstance(factor, Real | Tensor) or not math.isfinite(factor):
            raise UserError(
                f"{place}.scheduler: {phase.scheduler['_target_']} returns {factor!r} for step 0 "
                "of 1, not a finite number."
            )
        for prefix, settings in self.param_groups.items():
            group_place = f"{place}.param_groups.{prefix}"
            for name in settings:
                if name == "params" or name.startswith("_"):
                    valid = [key for key in signature(self._make).parameters if key != "params"]
                    raise UserError(
                        f"{group_place}.{name} is no setting of the optimizer. Valid: "
                        f"{', '.join(valid)}."
                    )
            _try_optimizer(group_place, {**phase.optimizer, **settings})
        if "timm.optim.muon" in sys.modules:  # else no phase uses it so far
            set_muon_dtype(muon_dtype)

    def make_optimizer(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        """The optimizer of these parameters, given by name.

        Raises:
            UserError: there are no parameters, a prefix in `param_groups` names none, or a setting
                there is unknown.
        """
        groups = group_parameters(parameters, self.param_groups, f"{self.place}.param_groups")
        if not parameters:
            raise UserError(
                f"{self.place}: what this phase trains has no parameters. Leave it out of "
                "phases.order, or give the method a layer to train."
            )
        try:
            return self._make(groups)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.place}.param_groups={self.param_groups}: {error}") from None


def _try_optimizer(place: str, node: Node) -> None:
    with _name_refused_settings(place, node):
        optimizer = build_instance(place, node, Optimizer, [nn.Parameter(torch.zeros(1))])
    momentum = optimizer.defaults.get("momentum")
    if isinstance(momentum, int | float) and momentum >= 1:  # torch refuses such betas, not this
        raise UserError(f"{place}.momentum={momentum}: must be less than 1.")


@contextmanager
def _name_refused_settings(place: str, node: Node) -> Iterator[None]:
    """Explain what the target of a node raises, other than ValueError, when it is tried."""
    try:
        yield
    except (TypeError, ArithmeticError, RuntimeError) as error:
        settings = {key: value for key, value in node.items() if key != "_target_"}
        reason = str(error).rstrip(".")
        raise UserError(f"{place}={settings}: {node['_target_']} refuses it: {reason}.") from None


def group_parameters(
    parameters: Mapping[str, nn.Parameter], overrides: Mapping[str, dict[str, Any]], place: str
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Parameters as torch's optimizers take them: a list, or groups with settings of their own.

    Args:
        parameters: by name.
        overrides: optimizer settings by prefix of the name; the longest prefix decides.
        place: of `overrides` in the configuration, for errors.

    Returns:
        All parameters where there are no overrides; else the groups, first that of no prefix.

    Raises:
        UserError: a prefix is that of no parameter.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    >>> groups = group_parameters(dict(net.named_parameters()), {"1": {"lr": 0.1}}, "here")
    >>> [(len(group["params"]), group.get("lr")) for group in groups]
    [(2, None), (1, 0.1)]
    """
    if not overrides:
        return list(parameters.values())
    members: dict[str, list[nn.Parameter]] = {"": [], **{prefix: [] for prefix in overrides}}
    for name, parameter in parameters.items():
        matches = [p for p in overrides if name == p or name.startswith(f"{p}.")]
        members[max(matches, key=len, default="")].append(parameter)
    for prefix, group in members.items():
        if prefix and not group:
            prefixes = {name[:i] for name in parameters for i, c in enumerate(name) if c == "."}
            raise UserError(
                f"{place}.{prefix}: no trained parameter's name begins with it. "
                + did_you_mean(prefix, prefixes)
            )
    groups = [{"params": members.pop("")}] if members[""] else []
    members.pop("", None)
    return groups + [{"params": group, **overrides[prefix]} for prefix, group in members.items()]


def set_muon_dtype(dtype: torch.dtype) -> None:
    """Have timm's Muon orthogonalise in this type.

    It does so in bfloat16 and has no setting for it; a processor without bfloat16 takes ten to
    twenty times as long for that as for float32, and longer than for all the rest of a step.
    """
    from timm.optim import muon

    current = muon.zeropower_via_newtonschulz
    original: Callable[..., Tensor] = getattr(current, "func", current)
    muon.zeropower_via_newtonschulz = partial(original, dtype=dtype)
