"""Single nodes of conf/, composed without the rest of the configuration."""

from typing import Any

from conftest import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf


def compose_component(group: str, name: str, *overrides: str) -> dict[str, Any]:
    """The node of `group=name`, with overrides such as `backbone.resize=40`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(f"{group}/{name}", overrides=list(overrides))
    return OmegaConf.to_container(cfg[group], resolve=True)  # type: ignore[return-value]
