"""The notebook in examples/: it runs from its first cell to its last."""

import json
import os
import sys
from pathlib import Path

import mounted as mounts
import nbclient
import nbformat
import pytest
from commands import User, mount_table

NOTEBOOK = Path(__file__).parent.parent / "examples" / "bigearthnet.ipynb"


@pytest.fixture
def user(tmp_path):
    made = User(tmp_path)
    yield made
    made.end()


def test_the_notebook_is_kept_without_output():
    """What it prints is seen by who runs it, and does not change the file."""
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


def test_the_notebook_runs(user):
    """It finds items by their labels, draws a chip, and leaves no mount behind."""
    mounts.need_fuse("fuse3")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(user.folder)}}
    ).execute(
        env={**user.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert printed.count("bigearthnet_v1_labels_S2A_MSIL2A_20170707T103021_18_30") >= 3
    assert "error" not in {output.output_type for output in outputs}
    assert any("image/png" in output.get("data", ()) for output in outputs)
    assert not [path for path in mount_table() if path.startswith(str(user.folder))]
