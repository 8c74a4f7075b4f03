"""What README.md, docs/, CHANGELOG.md and CITATION.cff say agrees with the rest of the tree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, options
from documents import CHANGELOG, DOCUMENTS, LINES, PROJECT, README, TABLES, TEXT
from omegaconf import OmegaConf

from deephash.cli.compose import compose_config, config_groups
from deephash.experiment import renames


def test_the_first_screen_installs_runs_and_tests() -> None:
    url = PROJECT["urls"]["Homepage"]
    installs = [line for line in LINES if line.startswith("pip install")]
    assert LINES[0] == f"git clone {url} && cd {url.rpartition('/')[2]}"
    assert installs[0] == "pip install -e . && python train.py"
    assert installs[1] == "pip install -e '.[dev]' && pytest"
    extras = re.findall(r"pip install (?:-e )?'(?:\.|deephash)\[(\w+)\]'", TEXT + CHANGELOG)
    assert {*extras} - {"search"} <= PROJECT["optional-dependencies"].keys()
    # Older versions of pip do not find an extra whose name has an underscore.
    assert all(extra.isalnum() for extra in PROJECT["optional-dependencies"])


@pytest.mark.parametrize(("document", "path"), TABLES, ids=lambda value: str(value)[-30:])
def test_tables_are_those_of_the_benchmarks(document: Path, path: str) -> None:
    shown = document.read_text().split(f"<!-- {path} -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == (ROOT / path).read_text().strip()
    assert shown.strip()


def test_every_table_is_shown_or_linked() -> None:
    for table in (ROOT / "benchmarks" / "results").glob("*.md"):
        assert f"benchmarks/results/{table.name}" in TEXT, table.name


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda path: path.name,
)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE) if heading else []
        names = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
        assert not heading or heading in names, link


def test_settings_and_choices_named_in_the_text_exist() -> None:
    def names(node: Any, prefix: str = "") -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from names(value, f"{prefix}{name}.")

    valid: set[str] = set()
    for group in ("dataset", "protocol", "backbone"):
        for choice in options(group):
            valid |= {*names(OmegaConf.to_container(compose_config([f"{group}={choice}"])))}
    valid |= {*names(OmegaConf.to_container(compose_config(["tuning=optuna"])))}
    groups = config_groups()
    for name, equals, value in re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(=?)([^`\s]*)`", TEXT):
        top = name.partition(".")[0]
        if name in groups and equals and re.fullmatch(r"[\w-]+", value):
            assert value in groups[name], f"{name}={value}"
        elif top in {n.partition(".")[0] for n in valid} and "." in name and top != "hydra":
            assert name in valid, name


def test_the_changelog_has_every_renamed_setting() -> None:
    for (group, name), new in renames.CHOICES.items():
        assert f"`{group}={name}`" in CHANGELOG.replace("`, `", "` `")
        assert new in CHANGELOG
    nodes = {"dataset": renames.DATASET_SETTINGS}
    for place, names in [
        *nodes.items(),
        *(("protocol", n) for n in renames.PROTOCOL_SETTINGS.values()),
    ]:
        for old, new in names.items():
            assert re.search(rf"`{place}\.{old}`.*\| `{place}\.{new}`", CHANGELOG), old


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert f"version = {{{PROJECT['version']}}}" in README
    assert f"## {PROJECT['version']}" in CHANGELOG
