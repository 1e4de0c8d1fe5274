"""The layout of the folders is the architecture: who may import whom, and no circles."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pcsnn import deprecated

ROOT = Path(__file__).parents[1]

# From the ground up: a room may import from its own floor and from those above it in this list.
FLOORS = [
    {"validate", "buffers", "randomness", "jit", "deprecated", "interrupt", "plotting", "tables",
     "costs", "verification", "proofs"},
    {"data"},
    {"likelihood", "elementwise", "activations", "initialisation", "batchnorm"},
    {"networks", "plain", "chains", "ensembles", "energies", "nodes"},
    {"rules", "admission", "running", "backprop", "perturbation"},
    {"predictive", "spiking"},
    {"models"},
    {"training"},
    {"explorers", "experiments"},
]  # fmt: skip
# Wings of one floor do not know one another.
APART = [("predictive", "spiking"), ("spiking", "predictive"), ("explorers", "experiments")]


def modules() -> dict[str, Path]:
    found = {}
    for path in (ROOT / "pcsnn").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name: str, *, at_run_time: bool = False) -> set[str]:
    """The modules of the package that one imports, wherever in its text.

    What only type checkers read, under ``if TYPE_CHECKING:``, is no import; an import within a
    function is one, but happens later, and cannot close a circle while modules are loaded.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if at_run_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pcsnn"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("pcsnn"))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(MODULES[name].read_text(encoding="utf-8")))
    return found - {name}


def room(name: str) -> str:
    """The module or package right under ``pcsnn``."""
    return name.split(".")[1] if "." in name else ""


def floor(name: str) -> int:
    return next(k for k, rooms in enumerate(FLOORS) if room(name) in rooms)


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n != "pcsnn"))
def test_no_module_imports_from_above_or_across(name: str) -> None:
    for other in imports(name):
        if other == "pcsnn" or room(other) == room(name):
            continue
        assert floor(other) <= floor(name), f"{name} imports {other}, which is above it"
        assert (room(name), room(other)) not in APART, f"{name} imports {other}, another wing"


def test_the_package_itself_is_imported_by_none_of_its_modules_for_its_names() -> None:
    own = {n: imports(n) for n in MODULES if n != "pcsnn"}
    knows_its_version = {"pcsnn.experiments.machinery.provenance"}
    assert {n for n, found in own.items() if "pcsnn" in found} == knows_its_version


def test_there_is_no_circle() -> None:
    state: dict[str, int] = {}  # 1 while a module is being visited, 2 when it is done

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert state.get(name) != 1, "a circle of imports: " + " -> ".join([*way, name])
        if state.get(name) == 2:
            return
        state[name] = 1
        for other in sorted(imports(name, at_run_time=True)):
            # A package's __init__ gathers the names of its own modules.
            if other in MODULES and not name.startswith(f"{other}."):
                visit(other, (*way, name))
        state[name] = 2

    for name in sorted(MODULES):
        visit(name, ())


def test_nothing_in_the_package_knows_the_book() -> None:
    for name, path in MODULES.items():
        if name.startswith("pcsnn.experiments.machinery.record"):
            continue  # the one place that finds the folder of the records
        text = path.read_text(encoding="utf-8")
        assert "chapters/" not in text.replace("chapters/results", ""), name


@pytest.mark.parametrize(("old", "new"), sorted(deprecated.MODULES.items()))
def test_a_module_that_moved_is_found_by_its_old_name(old: str, new: str) -> None:
    import sys

    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved: write {new}"):
        assert importlib.import_module(old) is importlib.import_module(new)


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("pcsnn.networks", "as_generator", "pcsnn.randomness"),
        ("pcsnn.networks", "INITIALISATIONS", "pcsnn.initialisation"),
        ("pcsnn.networks", "initialise", "pcsnn.initialisation"),
        ("pcsnn.predictive.dense", "per_copy", "pcsnn.predictive.looks"),
        ("pcsnn.predictive.kernels", "ACTIVATIONS", "pcsnn.predictive.compiled"),
        ("pcsnn.predictive.kernels", "OUTPUTS", "pcsnn.predictive.compiled"),
        ("pcsnn.predictive.kernels", "AT_END", "pcsnn.predictive.compiled"),
        ("pcsnn.predictive.kernels", "AT_OWN_TIME", "pcsnn.predictive.compiled"),
        ("pcsnn.predictive.kernels", "AT_FRONT", "pcsnn.predictive.compiled"),
        (
            "pcsnn.experiments.machinery.runner",
            "resolve_device",
            "pcsnn.experiments.machinery.machines",
        ),
        ("pcsnn.experiments.machinery.runner", "work_folder", "pcsnn.experiments.machinery.work"),
        ("pcsnn.ensembles", "train_many", "pcsnn.training.many"),
        ("pcsnn.predictive.feedback", "FeedbackAlignment", "pcsnn.predictive.alignment"),
        (
            "pcsnn.predictive.inference_learning",
            "IncrementalInferenceLearning",
            "pcsnn.predictive.incremental",
        ),
    ],
)
def test_a_name_that_moved_is_found_where_it_was(module: str, name: str, home: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"write {home}\.{name}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize(
    ("module", "names", "instead"),
    [
        ("pcsnn.stages", "Stage Point General GeneralPoint", "pcsnn.predictive.first_look.look_at"),
        ("pcsnn.compiled", "Bound bind known", "pcsnn.predictive.compiled.present"),
        ("pcsnn.kernels", "AVAILABLE", "pcsnn.jit.available"),
        ("pcsnn.spiking.simulation", "ENGINES", "engine='kernel', 'torch', or None"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_name_that_is_gone_says_what_to_write_instead(
    module: str, names: str, instead: str
) -> None:
    for name in names.split():
        with pytest.raises(ImportError, match=rf"\.{name} is gone: write {instead}"):
            getattr(importlib.import_module(module), name)
        with pytest.raises(ImportError, match=rf"\.{name} is gone: write {instead}"):
            exec(f"from {module} import {name}", {})


def test_a_name_that_never_was_is_refused() -> None:
    import pcsnn

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pcsnn.nonsense


def test_spiking_networks_are_an_attribute_that_is_imported_when_it_is_asked_for() -> None:
    program = (
        "import sys, pcsnn\n"
        "before = 'pcsnn.spiking' in sys.modules\n"
        "print(before, pcsnn.mlp([2, 3, 2], pcsnn.spiking.LIFRate()).layers[0].activation.name)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "False lif-rate", run.stderr


def test_at_the_top_lies_what_is_named_here():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert top - {".ci", ".gitignore", ".github"} == {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
        "_config.yml", "_toc.yml", "benchmarks", "chapters", "constraints.txt", "package.json",
        "pcsnn", "pyproject.toml", "requirements.txt", "tests", "tools",
    }  # fmt: skip
