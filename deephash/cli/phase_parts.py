"""`optimizer=` and `scheduler=`: one choice for every phase.

Hydra merges: a choice made in each phase would keep what the recipe says for another class.
"""

import logging
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from deephash.core.errors import UserError
from deephash.core.ranks import is_rank_zero

logger = logging.getLogger(__name__)

GROUPS = ("optimizer", "scheduler")


def replace_phase_parts(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A composed configuration whose phases have the optimizer and scheduler chosen for all.

    What a recipe or an experiment sets for a phase is replaced; what the command line sets for it
    is kept. Each replacement is logged.

    Args:
        cfg: with the nodes `optimizer` and `scheduler` where they were chosen.
        overrides: of the command line, which are in `cfg` already.

    Returns:
        A copy without these nodes.

    Raises:
        UserError: an override removes a setting that the choice replaces, or gives a setting
            without a choice.
    """
    cfg = cfg.copy()
    order = OmegaConf.select(cfg, "phases.order") or ()
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    with open_dict(cfg):
        chosen = {group: cfg.pop(group, None) for group in GROUPS}
        for group, node in chosen.items():
            if isinstance(node, DictConfig) and "_target_" not in node:
                name = str(next(iter(node), "lr"))
                raise UserError(
                    f"{group}.{name}: no {group} is chosen for all phases. Choose one, "
                    f"{group}=..., or write training.<phase>.{group}.{name}=..."
                )
        for group, node in chosen.items():
            for name, phase in _phases(cfg).items() if node is not None else ():
                place = f"training.{name}.{group}"
                if any(o.key_or_group == group and o.package == place for o in parsed):
                    continue  # chosen for this phase alone
                before = phase.get(group)
                phase[group] = node
                _repeat_overrides(cfg, place, parsed)
                if name in order and phase[group] != before and is_rank_zero():
                    after = _describe(phase[group])
                    logger.info("%s: %s, in place of %s", place, after, _describe(before))
    return cfg


def _repeat_overrides(cfg: DictConfig, place: str, overrides: Sequence[Override]) -> None:
    for override in overrides:
        key = override.key_or_group
        if place.startswith(f"{key}."):  # the override may set all of a phase, {epochs: 7, ...}
            value = override.value()
            for part in place.removeprefix(f"{key}.").split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                OmegaConf.update(cfg, place, value, force_add=True)
            continue
        if not f"{key}.".startswith(f"{place}."):
            continue
        if override.is_delete():
            group = place.rpartition(".")[2]
            raise UserError(
                f"{override.input_line} has no effect beside {group}=..., which replaces the "
                f"{group} of every phase. Choose it for one phase by {group}@{place}=..."
            )
        OmegaConf.update(cfg, key, override.value(), force_add=True)


def _phases(cfg: DictConfig) -> dict[str, DictConfig]:
    """The phases that are nodes; anything else is refused when the settings are validated."""
    training: Any = cfg.get("training")
    named = training.items() if isinstance(training, DictConfig) else ()
    return {str(name): phase for name, phase in named if isinstance(phase, DictConfig)}


def _describe(node: Any) -> str:
    if not isinstance(node, DictConfig):
        return "nothing"
    values: Any = OmegaConf.to_container(node, resolve=False)
    name = str(values.pop("_target_", "?")).rpartition(".")[2]
    return " ".join([name, *(f"{key}={value}" for key, value in values.items())])
