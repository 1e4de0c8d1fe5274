"""The oldest versions that the package may be used with are those that pyproject.toml names."""

from __future__ import annotations

import tomllib

import pytest

from tools import versions


def test_lower_bounds_are_read_from_the_project():
    project = {
        "dependencies": ["torch>=2.4", "scikit-learn>=1.4"],
        "optional-dependencies": {"fast": ["scipy>=1.11.1"], "other": ["a.b>=3"]},
    }
    assert versions.lower_bounds(project) == [
        "torch==2.4", "scikit-learn==1.4", "scipy==1.11.1", "a.b==3",
    ]  # fmt: skip


@pytest.mark.parametrize("requirement", ["torch", "torch>=2.4,<3", "torch==2.4", "torch[x]>=2"])
def test_a_requirement_without_a_plain_lower_bound_is_refused(requirement):
    with pytest.raises(ValueError, match=r"must be of the form name>=version"):
        versions.lower_bounds({"dependencies": [requirement]})


def test_the_project_s_own_bounds_are_plain_and_its_tools_pinned():
    text = (versions.ROOT / "pyproject.toml").read_text()
    assert versions.lower_bounds(tomllib.loads(text)["project"])
    tools = versions.tools((versions.ROOT / "requirements.txt").read_text())
    assert all("==" in tool for tool in tools)


def test_tools_are_pinned_as_for_the_book():
    found = versions.tools("pytest==9.2.0\npytest-xdist==3.8.0\n# nbval==1\n")
    assert found[:2] == ["pytest==9.2.0", "pytest-xdist==3.8.0"]
    assert "nbval" in found
