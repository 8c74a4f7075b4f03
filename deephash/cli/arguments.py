"""The arguments of a command line, checked before Hydra reads them: its options, then overrides."""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    OverrideType,
    QuotedString,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException

from deephash.core.errors import UserError, did_you_mean
from deephash.core.program import quote, quote_in_shell

FLAGS = {
    "-h": "--help",
    "-m": "--multirun",
    "-r": "--run",
    "-sc": "--shell-completion",
    **{name: name for name in ("--version", "--hydra-help", "--resolve")},
}
VALUES = {  # options with a value
    "-c": "--cfg",
    "-cd": "--config-dir",
    "-i": "--info",
    "-p": "--package",
}
OPTION_CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
COMMANDS = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")
SHELLS = ("bash", "zsh", "fish")
SEVERAL_CHOICES = ("logger", "experiment", "debug")  # groups that take a list


def split_options(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The options of a command line, by long name with their values, and its overrides.

    Options may stand before, between and after the overrides.

    Raises:
        UserError: an option is unknown, lacks its value, or does not go with another.
    """
    options: dict[str, list[str]] = {}
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        given, separator, value = argument.partition("=")
        if FLAGS.get(given, given) in FLAGS.values():
            if separator:
                raise UserError(f"{argument}: {given} takes no value. Write {given}")
            options[FLAGS.get(given, given)] = []
            continue
        name = VALUES.get(given, given)
        if name not in VALUES.values():
            raise UserError(_explain_unknown_option(argument, rest))
        choices = OPTION_CHOICES.get(name, ())
        if not separator and rest and not (name == "--info" and rest[0] not in choices):
            value = rest.pop(0)
        elif name == "--info" and not separator:
            value = "all"
        if not value or value.startswith("-") or (choices and value not in choices):
            wanted = ", ".join(choices) or {"--config-dir": "a folder"}.get(name, "a setting")
            raise UserError(f"{f'{given} {value}'.rstrip()}: the option needs a value: {wanted}.")
        options.setdefault(name, []).append(value)
    _check_options(options, overrides)
    return options, overrides


def _check_options(options: Mapping[str, Any], overrides: Sequence[str]) -> None:
    commands = [name for name in COMMANDS if name in options]
    if len(commands) > 1:
        raise UserError(f"{' and '.join(commands)} exclude each other. Omit one.")
    for name in ("--resolve", "--package"):
        if name in options and "--cfg" not in options:
            raise UserError(f"{name} goes only with --cfg job.")
    if "--shell-completion" in options:
        named = ("install", "uninstall", *(("query",) if "COMP_LINE" in os.environ else ()))
        actions = [f"{action}={shell}" for action in named for shell in SHELLS]
        if len(overrides) != 1 or overrides[0] not in actions:
            raise UserError(
                "--shell-completion: write -sc install=bash, or zsh or fish in its place."
            )


def _explain_unknown_option(argument: str, rest: Sequence[str]) -> str:
    name, separator, value = argument.lstrip("-").partition("=")
    if not separator and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        value = rest[0]
    hint = did_you_mean(argument, [*FLAGS.values(), *VALUES.values()])
    if not hint.startswith("Did"):
        hint = f"Settings are written without dashes: {name or 'NAME'}={value or 'VALUE'}"
    return f"{argument}: there is no such option. {hint}"


def parse_override(argument: str) -> Override:
    """An override of the command line, parsed.

    Raises:
        UserError: it is not one.
    """
    name, separator, value = argument.partition("=")
    if separator and not name.partition("@")[0].strip("+~"):
        raise UserError(f"'{argument}' names no setting. Write NAME=VALUE.")
    try:
        (override,) = OverridesParser.create().parse_overrides([argument])
    except (HydraException, ValueError, RecursionError):
        raise UserError(f"{argument}: {_explain_grammar(name, value)}") from None
    return override


def _explain_grammar(name: str, value: str) -> str:
    if not re.fullmatch(r"[+~]*[\w/@$-]+(\.[\w/@$-]+)*", name, re.ASCII):
        return f"'{name}' cannot be the name of a setting. Write NAME=VALUE."
    if value.startswith("="):
        return f"write one '=': {name}={value.lstrip('=')}"
    if value == "~" or value.startswith("~/"):  # no shell replaces it within an argument
        home = f'{name}="$HOME{value[1:]}"'
        return f"'~' is not replaced by your home folder here. Write the folder in full, or {home}"
    quoted = quote_in_shell(name, value)
    if re.fullmatch(r"\[[^][{}'\"]*\]", value):
        entries = ",".join(quote(entry.strip()) for entry in value[1:-1].split(","))
        return f'this list cannot be read. Quote its entries: "{name}=[{entries}]"'
    for mark in "'\"":
        if value.count(mark) % 2:
            return f"a {mark} is not closed. If it is part of the text, write {quoted}"
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) > value.count(closing):
            with_spaces = f"Quote an argument with spaces, '{name}={opening}A, B{closing}'. "
            return (
                f"'{opening}' is not closed. {with_spaces if opening == '[' else ''}"
                f"If it is part of the text, write {quoted}"
            )
    if "[" not in value and not all(part.strip() for part in value.split(",")):
        return f"a value beside the comma is missing. If it is part of the text, write {quoted}"
    return f"this value cannot be read. If it is a text, quote it twice: {quoted}"


def check_overrides(
    overrides: Sequence[str],
    groups: Mapping[str, Collection[str]],
    defaults: Mapping[str, Any],
    *,
    is_multirun: bool,
) -> list[str]:
    """The overrides without those that choose nothing in a group where that is the default.

    Args:
        overrides: of the command line.
        groups: their choices by name.
        defaults: the choice that each entry of the defaults list makes, by its key such as
            `optimizer@training.hash.optimizer`.
        is_multirun: whether a setting may have several values.

    Raises:
        UserError: an override cannot be read, or chooses what is no choice of its group.
    """
    kept: list[str] = []
    swept_groups = {
        name
        for name, value in (argument.split("=", 1) for argument in overrides if "=" in argument)
        if name in groups and defaults.get(name, ...) is None and "," in value
    }
    for argument, following in zip(overrides, [*overrides[1:], ""], strict=False):
        if "=" not in argument and not argument.startswith("~"):
            name, _, value = argument.partition(":")
            value = value or ("" if "=" in following else following) or "VALUE"
            is_name = re.fullmatch(r"\+*[A-Za-z_][\w./@]*", name, re.ASCII)
            example = f"{name}={value}" if is_name else "NAME=VALUE"
            raise UserError(f"'{argument}' gives no setting a value. Write {example}")
        override = parse_override(argument)
        if override.is_sweep_override() and not is_multirun:
            name, _, value = argument.partition("=")
            if override.key_or_group in groups:
                raise UserError(f"{argument}: several choices need -m.")
            raise UserError(
                f"{argument}: several values need -m. A list is written {name}=[A,B], a text "
                f"with such characters {quote_in_shell(name, value)}"
            )
        if override.key_or_group not in groups or isinstance(override.value(), dict):
            _check_setting(argument, override, is_multirun=is_multirun)
            # The choices of a sweep are made later, so that nothing is there yet to override.
            is_later = override.key_or_group.partition(".")[0] in swept_groups
            kept.append(
                f"++{argument}" if is_later and override.type is OverrideType.CHANGE else argument
            )
        elif _check_choice(argument, override, groups[override.key_or_group], defaults):
            kept.append(argument)
        else:
            kept = [other for other in kept if not other.startswith(f"{override.key_or_group}=")]
    return kept


def _check_setting(argument: str, override: Override, *, is_multirun: bool) -> None:
    name = override.key_or_group
    if name.startswith("launcher."):
        raise UserError(
            f"{argument}: the launcher's settings are Hydra's own. Write hydra.{argument}"
        )
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        raise UserError(f"{argument}: glob chooses among the files of a group. List the values.")
    if name == "hydra" or (name.startswith("hydra/") and not isinstance(override.value(), str)):
        raise UserError(f"{argument}: choose a file of a group of Hydra's, hydra/GROUP=CHOICE.")
    if name == "run_dir" and override.is_sweep_override():
        raise UserError(f"{argument}: the runs of a sweep lie below one run_dir. Name one.")
    value = override.value()
    if isinstance(value, ChoiceSweep) and any(isinstance(entry, Sweep) for entry in value.list):
        raise UserError(f"{argument}: a sweep within another. Write {name}=A,B,C.")
    if override.is_interval_sweep():
        raise UserError(
            f"{argument}: a sweep takes values, {name}=A,B. tuning=optuna searches an interval."
        )
    if name == "resume" and is_multirun:
        raise UserError(
            f"{argument} cannot be swept: resume one run without -m. A sweep is continued by its "
            "command with run_dir= of its folder."
        )


def _check_choice(
    argument: str, override: Override, choices: Collection[str], defaults: Mapping[str, Any]
) -> bool:
    """Whether the choice is to be made; not where nothing is chosen and that is the default."""
    group, package = override.key_or_group, override.package
    key = f"{group}@{package}" if package else group
    is_adding = override.is_add() or override.is_force_add()
    if is_adding and key in defaults:
        raise UserError(f"{argument}: {group} is chosen without a '+'. Omit it.")
    if package and key not in defaults and not is_adding:
        places = [name for name in defaults if name.startswith(f"{group}@")]
        hint = did_you_mean(key, places) if places else f"Write {group}=..."
        raise UserError(f"{argument}: no {group} is used at {package}. {hint}")
    names = ", ".join(sorted(choices))
    is_optional = key in defaults and defaults[key] is None
    if override.is_delete():
        if key in defaults and not is_optional:
            raise UserError(f"{argument}: choose one of {names}, by {key}=...")
        return True
    for value in _values(override):
        if isinstance(value, list) and group not in SEVERAL_CHOICES:
            raise UserError(f"{argument}: {group} takes one choice, without brackets: {names}.")
        if value is None or value == "":
            if not is_optional:
                raise UserError(f"{argument}: choose one of {names}.")
            if override.is_sweep_override():
                raise UserError(
                    f"{argument}: '{'null' if value is None else value}' cannot be one of several "
                    f"choices. Run it without {group}=."
                )
            return False
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str | Glob):
                hint = did_you_mean(str(name), choices)
                name = "null" if name is None else name
                raise UserError(f"{argument}: {group} has no choice '{name}'. {hint}")
    return True


def _values(override: Override) -> Iterator[Any]:
    value = override.value()
    for entry in value.list if isinstance(value, ChoiceSweep) else [value]:
        yield entry.text if isinstance(entry, QuotedString) else entry
