"""README's promises: options, sentences about semantics, the table of faults, the house's map."""

import ast
import functools
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlhubfs.cli import cli
from mlhubfs.server.run import LocalServer

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text(encoding="utf-8")


def _section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", _README, re.MULTILINE | re.DOTALL)[1]


def _promises():
    """The bullets of the section Semantics, each as one line."""
    bullets = re.findall(
        r"^\* (.+?)(?=\n\n|\n\* |\n\*\*|\Z)", _section("Semantics"), re.MULTILINE | re.DOTALL
    )
    return [" ".join(bullet.split()) for bullet in bullets]


def _faults():
    """The first cells of the table of faults."""
    table = _section("Semantics").partition("| what goes wrong |")[2]
    return re.findall(r"^\| (.+?) \|", table, re.MULTILINE)


@functools.cache
def _quotes(mark):
    """The words that tests are marked with, and where."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{mark}":
                found.setdefault(ast.literal_eval(node.args[0]), []).append(path.name)
    return found


def test_there_are_promises():
    """The section Semantics is found, and is a list of sentences."""
    assert len(_promises()) > 20
    assert all(promise.endswith(".") for promise in _promises())


@pytest.mark.parametrize("promise", _promises())
def test_each_promise_is_quoted_by_a_test(promise):
    """Each sentence of Semantics has a test that is marked with its very words."""
    assert promise in _quotes("promise")


def test_no_test_quotes_what_is_not_promised():
    """A sentence that was changed in README is changed at its test too."""
    assert set(_quotes("promise")) <= set(_promises())


@pytest.mark.parametrize("fault", _faults())
def test_each_fault_has_a_test(fault):
    """Each row of the table of faults has a test that is marked with its first cell."""
    assert fault in _quotes("fault")


def test_no_test_shows_a_fault_that_is_not_in_the_table():
    """A row that was changed in README is changed at its tests too."""
    assert len(_faults()) > 20
    assert set(_quotes("fault")) <= set(_faults())


def test_options_are_those_of_the_help():
    """README's list of options is, line by line, what `mlhubfs mount --help` prints."""
    help_text = CliRunner().invoke(cli, ["mount", "--help"], terminal_width=120).output
    printed = re.search(r"Options of -o.*?:\n(.*?)\n\n", help_text, re.DOTALL)[1]
    listed = re.search(r"### Options\n.*?```\n(.*?)\n```", _README, re.DOTALL)[1]
    assert [line.strip() for line in printed.splitlines()] == listed.splitlines()


def test_each_command_is_in_the_table():
    """Every command has its row in README."""
    rows = "\n".join(line for line in _section("Mount").splitlines() if line.startswith("| `"))
    for name in cli.list_commands(click.Context(cli)):
        assert re.search(rf"`(mlhubfs )?{name}\b", rows), name


def test_the_map_names_the_rooms_that_are_there():
    """How it works: the map names every module and folder of the package, and none that is gone."""
    listed = re.findall(r"^  ([a-z_]+(?:/|\.py)) ", _section("How it works"), re.MULTILINE)
    there = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (_ROOT / "mlhubfs").iterdir()
        if not path.name.startswith("_") and path.suffix in {"", ".py"}
    ]
    assert sorted(listed) == sorted(there)


def test_relative_links_lead_somewhere():
    """Each relative link of README leads to a file of the repository."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", _README):
        assert (_ROOT / target).exists(), target


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    """The program of the section Python prints something for each item it finds in the sample."""
    monkeypatch.setenv("MLHUBFS_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("MLHUB_PROFILE", "__anonymous__")
    program = re.search(r"```python\n(.*?)```", _section("Python"), re.DOTALL)[1]
    with LocalServer(cache_dir=tmp_path) as server:
        exec(program.replace("http://127.0.0.1:7462/mlhub/v1", server.root_url), {})
    assert re.fullmatch(
        r"(bigearthnet_v1_labels_\S+ \[.+\] \d+\.\d+\n){3}", capsys.readouterr().out
    )
