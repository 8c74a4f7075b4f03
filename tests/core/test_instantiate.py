import sys
from pathlib import Path

import pytest

from deephash.core.errors import UserError
from deephash.core.instantiate import build, build_instance, check_node, without_import_paths

SCALER = """
class Scaler:
    def __init__(self, side: int, *, factor: float = 1.0) -> None:
        if factor <= 0:
            raise ValueError(f"factor={factor}: give a number greater than 0")
        self.side, self.factor = side, factor
    class Inner: pass
SIZE = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's package with working and broken modules."""
    folder = tmp_path / "mylab_nets"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "scaling.py").write_text(SCALER)
    (folder / "needs_other.py").write_text("import a_package_that_is_not_there")
    (folder / "broken.py").write_text("def f(:")
    (folder / "exits.py").write_text("import sys\nsys.exit('no data')")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (
            "mylab_absent.nets.Foo",
            "no package 'mylab_absent' is installed. Install it, or add its folder to PYTHONPATH.",
        ),
        ("mylab_nets.nothing.Foo", "module 'mylab_nets' has no 'nothing'."),
        ("mylab_nets.scaling.Skaler", "'mylab_nets.scaling' has no 'Skaler'. Did you mean 'Scaler"),
        ("mylab_nets.scaling.Scaler.Outer", "class 'mylab_nets.scaling.Scaler' has no 'Outer'."),
        ("mylab_nets.scaling.SIZE", "it is a int, not a class or function."),
        ("mylab_nets.scaling", "it is a module, not a class or function."),
        ("mylab_nets.needs_other.Foo", "'mylab_nets.needs_other' imports 'a_package_that_is_not"),
        ("mylab_nets.broken.Foo", "importing 'mylab_nets.broken' fails: SyntaxError"),
        (
            "mylab_nets.exits.Foo",
            "importing 'mylab_nets.exits' fails: it calls sys.exit('no data')",
        ),
        ("Scaler", "give the full import path of a class or function"),
        ("mylab_nets..Scaler", "give the full import path of a class or function"),
    ],
)
def test_missing_target_is_one_sentence(package: str, target: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        check_node("backbone", {"_target_": target})
    message = str(error.value)
    assert message.startswith(f"backbone._target_={target} cannot be imported: ")
    assert reason in message
    assert "\n" not in message


def test_a_target_without_a_signature_is_one_sentence() -> None:
    with pytest.raises(UserError, match="^net._target_=builtins.dict is built into Python"):
        build("net", {"_target_": "builtins.dict"})


@pytest.mark.parametrize(
    ("args", "settings", "message"),
    [
        ((), {"factor": 2.0}, "missing a required argument: 'side'"),
        ((3,), {"side": 4}, "multiple values for argument 'side'"),
        ((3, 4), {}, "too many positional arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(
    package: str, args: tuple[int, ...], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=rf"^net: Scaler, called with {len(args)} arg.*: {message}"):
        build("net", {"_target_": f"{package}.scaling.Scaler", **settings}, *args)


def test_what_is_no_instance_of_a_class_is_refused(package: str) -> None:
    node = {"_target_": f"{package}.scaling.Scaler"}
    assert build_instance("net", node, object, 3).side == 3
    with pytest.raises(UserError, match=r"^net\._target_=.* makes a Scaler; it must make a .*Path"):
        build_instance("net", node, Path, 3)


@pytest.mark.parametrize("name", ["Scaler", "Scaler.Inner"])
def test_targets_are_found(package: str, name: str) -> None:
    check_node("backbone", {"_target_": f"{package}.scaling.{name}"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"facter": 2}, "net.facter: Scaler has no such setting. Did you mean 'factor'?"),
        ({"factor": "large"}, "net.factor=large: must be a number"),
        ({"factor": -1.0}, "net.factor=-1.0: give a number greater than 0"),
    ],
)
def test_wrong_settings_are_named(package: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match="^net.") as error:
        build("net", {"_target_": f"{package}.scaling.Scaler", **settings}, 3)
    assert message in str(error.value)


def test_node_without_target_is_refused() -> None:
    with pytest.raises(UserError, match="net: no _target_ names a class or function"):
        check_node("net", {"factor": 2})


def test_build_passes_arguments_and_settings(package: str) -> None:
    node = {"_target_": f"{package}.scaling.Scaler", "factor": 2.0}
    scaler = build("net", node, 3)
    assert (scaler.side, scaler.factor) == (3, 2.0)
    assert build("net", node, partial=True)(4).side == 4


def refuse() -> None:
    raise UserError("dataset.path=/nowhere does not exist.")


def test_user_error_of_the_target_keeps_its_message() -> None:
    with pytest.raises(UserError) as error:
        build("dataset", {"_target_": f"{__name__}.refuse"})
    assert str(error.value) == "dataset.path=/nowhere does not exist."


def test_import_paths_are_cut_at_every_depth() -> None:
    node = {"_target_": "a.b.C", "steps": [{"_target_": "a.D", "x": 1}], "_target": "a.b"}
    expected = {"_target_": "a.C", "steps": [{"_target_": "a.D", "x": 1}], "_target": "a.b"}
    assert without_import_paths(node) == expected
