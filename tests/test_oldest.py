"""The lower bounds in pyproject.toml hold: every check passes with the oldest releases they allow.

`make test-all` installs them into an environment of its own, which takes minutes and several GB, and gives both back.
"""

import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "oldest.txt"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
NEWER = (  # modules of the oldest releases that warn of what they themselves use: a newer pyparsing, NumPy 1.25, torch's own
    "matplotlib._fontconfig_pattern",
    "matplotlib._mathtext",
    "torch._dynamo.side_effects",
    "triton.runtime.interpreter",
)
WHO = ("-c", "user.name=tests", "-c", "user.email=tests")


def bound(specifier):
    """X of ">=X"."""
    found = re.fullmatch(r">=([\w.]+)", str(specifier))
    assert found, f"pyproject.toml: a requirement has one bound, >=X; this has {str(specifier) or 'none'}"
    return found[1]


def oldest():
    """What the build, the package and its extras require, at the lower bounds: {"pyright": "pyright[nodejs]==1.1.402"}.

    Without `docs`, which builds the site and runs nothing of the package.
    """
    build, pins = PYPROJECT["build-system"]["requires"], {}
    extras = [needed for extra, needed in PROJECT["optional-dependencies"].items() if extra != "docs"]
    for requirement in map(Requirement, chain(build, PROJECT["dependencies"], *extras)):
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:  # an extra made of others
            continue
        pin = str(requirement).replace(str(requirement.specifier), f"=={bound(requirement.specifier)}")
        assert pins.setdefault(name, pin) == pin, f"pyproject.toml: two bounds of {name}"
        pins[name] = pin
    return pins


def test_the_bounds_are_those_of_the_last_passing_run():
    """A changed bound demands a new run: make test-all, which writes tests/oldest.txt."""
    first, *lines = RECORD.read_text().splitlines()
    assert f"Python {bound(PROJECT['requires-python'])}." in first
    ran = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for name, pin in oldest().items():
        assert Requirement(pin).specifier.contains(ran[name]), f"{pin}: the last run had {ran[name]}"


@pytest.mark.oldest
def test_every_check_passes_with_the_oldest():
    """On a copy of the files that git knows or would add, with its own kernels; what passed is written to tests/oldest.txt."""
    python = f"python{bound(PROJECT['requires-python'])}"
    assert shutil.which(python), f"the oldest Python that pyproject.toml allows, {python}, is not on the PATH"
    commit, files = git("describe", "--always", "--dirty", "--exclude=*"), git("ls-files", "-co", "--exclude-standard", "-z")
    with tempfile.TemporaryDirectory() as folder:
        tree, bin = Path(folder, "tree"), Path(folder, "venv", "bin")
        for file in filter(None, files.split("\0")):
            if (ROOT / file).exists():  # else deleted, and git not yet told
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, tree / file)
        run(tree, "git", "init", "--quiet")  # some tests ask git for the files
        run(tree, "git", "add", "--all")
        run(tree, "git", *WHO, "commit", "--quiet", "--no-gpg-sign", "--message=copy")
        run(tree, python, "-m", "venv", bin.parent)
        run(tree, bin / "pip", "install", "--quiet", "--only-binary=:all:", *oldest().values())
        run(tree, bin / "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
        run(tree, bin / "python", "-c", "from staa.ops import cpu; assert cpu.LIBRARY, cpu.WHY_NOT")
        run(tree, bin / "ruff", "check", ".")
        run(tree, bin / "ruff", "format", "--check", ".")
        run(tree, bin / "lint-imports")
        run(tree, bin / "pyright", "--pythonpath", sys.executable)  # the oldest libraries have other types
        options = ["-n", "2", "--dist", "worksteal", "-m", "not slow", f"--ignore={Path('tests', Path(__file__).name)}"]
        tests = run(tree, bin / "python", "-m", "pytest", *options)
        versions = run(tree, bin / "pip", "list", "--format=freeze", "--exclude-editable")
        used = run(tree, bin / "python", "--version").strip()
    count = tests.splitlines()[-1]
    RECORD.write_text(f"# {datetime.date.today()}, commit {commit}, {used}: {count}\n{versions}")


def git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def run(folder, *command):
    """What the command prints; a failure shows it."""
    options = [os.environ.get("PYTEST_ADDOPTS", ""), *(f"-W ignore::DeprecationWarning:{module}" for module in NEWER)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTEST_ADDOPTS"] = " ".join(options)  # so that pytest in a test's own process takes them too
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
