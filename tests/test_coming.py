"""README's table "Coming from radiant_mlhub": each of its lines works on the sample."""

import re
import subprocess
import sys
from pathlib import Path

import mounted as mounts
import pytest

import mlhubfs
from mlhubfs.server.run import LocalServer

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def rows():
    """Return (what it was, shell commands, Python expressions) of each row."""
    section = re.search(
        r"^### Coming from radiant_mlhub\n(.*?)^#", README, re.MULTILINE | re.DOTALL
    )[1]
    found = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0].startswith("`"):
            was, *ours = (cell.replace(r"\|", "|") for cell in cells)
            found.append((was, *(re.findall(r"`(.+?)`", cell) for cell in ours)))
    return found


ROWS = rows()


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A mount of the sample, an item of its labels, and what README's Python example names."""
    mounts.need_fuse("fuse3")
    folder = tmp_path_factory.mktemp("coming")
    with (
        LocalServer(cache_dir=folder / "server") as server,
        mounts.mounted(server.root_url, folder) as mount,
        pytest.MonkeyPatch.context() as patch,
    ):
        mount.environ["MLHUB_ROOT_URL"] = server.root_url
        mount.environ["PATH"] = f"{Path(sys.executable).parent}:{mount.environ['PATH']}"
        for name in ("HOME", "XDG_CACHE_HOME", "MLHUB_ROOT_URL"):
            patch.setenv(name, mount.environ[name])
        with mlhubfs.Catalog() as catalog:
            yield mount, named(catalog)


def named(catalog):
    labels = catalog.collection("bigearthnet_v1_labels")
    wanted = {"labels": ["Coniferous forest", "Rice fields"], "cloud_and_shadow": False}
    item = next(labels.items(wanted))
    return {
        "mlhubfs": mlhubfs,
        "catalog": catalog,
        "dataset": catalog.dataset("bigearthnet_v1"),
        "labels": labels,
        "wanted": wanted,
        "item": item,
        "image": item.sources()[0],
    }


def test_the_table_is_found():
    """Each row has a counterpart, at least one."""
    assert len(ROWS) > 20
    assert all(shell or python for _, shell, python in ROWS)


@pytest.mark.parametrize(
    "command", dict.fromkeys(command for _, shell, _ in ROWS for command in shell)
)
def test_a_command_works(there, tmp_path, command):
    """It ends well, and prints something or leaves files."""
    mount, names = there
    command = command.replace("DIR/ITEM", f"DIR{names['item'].path}")
    done = subprocess.run(
        ["bash", "-c", command.replace("DIR", str(mount.path))],
        env=mount.environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "expression", dict.fromkeys(one for _, _, python in ROWS for one in python)
)
def test_an_expression_has_a_value(there, tmp_path, monkeypatch, expression):
    """It is true, and not nothing."""
    monkeypatch.chdir(tmp_path)
    assert eval(expression, there[1])
