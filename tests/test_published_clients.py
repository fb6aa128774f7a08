"""MLHub's own clients, as they were published on PyPI, against the local server.

Each runs in a virtual environment of its own, made once and kept in the user's cache folder.
"""

import fcntl
import hashlib
import json
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from typing import NamedTuple

import mounted as mounts
import platformdirs
import pytest

from mlhubfs.server.run import LocalServer

KEY = "KEY-7e1d03aa"
DATASET = "bigearthnet_v1"
SOURCE, LABELS = "bigearthnet_v1_source", "bigearthnet_v1_labels"
COMMON = (
    "pystac==1.8.4", "python-dateutil==2.9.0.post0", "six==1.17.0", "requests==2.32.5",
    "urllib3==2.5.0", "certifi", "charset-normalizer==3.4.4", "idna==3.11", "click==8.1.8",
    "tqdm==4.67.1",
)  # fmt: skip
REQUIREMENTS = {
    "0.4.1": ("radiant_mlhub==0.4.1", *COMMON),
    "0.5.5": (
        "radiant_mlhub==0.5.5", *COMMON, "pydantic==1.10.24", "typing_extensions==4.15.0",
        "shapely==1.8.5.post1; python_version < '3.12'",
        "shapely==2.1.2; python_version >= '3.12'", "numpy; python_version >= '3.12'",
    ),
}  # fmt: skip


class Session(NamedTuple):
    """What a client said, and the folder that it downloaded to."""

    said: dict
    folder: Path
    root_url: str


@pytest.fixture(scope="module", params=REQUIREMENTS)
def session(request, tmp_path_factory):
    """The whole session of a client, with a server that asks for a key."""
    python = _python_with(REQUIREMENTS[request.param])
    folder = tmp_path_factory.mktemp("client")
    with LocalServer(cache_dir=folder / "server", api_key=KEY) as server:
        # Without a slash at its end, from which the client loses the root's last segment.
        environ = {
            "MLHUB_ROOT_URL": server.root_url, "MLHUB_API_KEY": KEY, "HOME": str(folder),
            "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        script = Path(__file__).with_name("published_client.py")
        done = subprocess.run(
            [python, script, folder], env=environ, capture_output=True, text=True, timeout=60,
            check=False, cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["version"] == request.param
        yield Session(said, folder, server.root_url)


def _python_with(requirements):
    """Return the Python of a virtual environment with these packages and no others."""
    mark = hashlib.sha256(repr((sys.version_info[:2], requirements)).encode()).hexdigest()[:16]
    folder = platformdirs.user_cache_path("mlhubfs-tests") / mark
    folder.parent.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            venv.create(folder, clear=True)
            pip = [sys.executable, "-m", "pip", "--python", python, "--timeout=10", "--retries=1"]
            words = ["install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            done = subprocess.run(
                [*pip, *words, *requirements], capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                pytest.skip(f"{requirements[0]} cannot be installed here: {reason}")
            complete.touch()
    return python


def test_a_client_lists_filters_and_fetches_datasets(session):
    """By tags, by text, by id, by DOI, by either."""
    said = session.said["datasets"]
    assert said.pop("ids") == [DATASET, "sample_aerial_scene_v1", "sample_crop_fields_v1"]
    doi = "10.5072/mlhubfs.sample-bigearthnet"
    assert said == {
        "with a tag": ["sample_crop_fields_v1"],
        "with tags": [],
        "with text": [DATASET],
        "fetched": [DATASET, doi, True, True],
        "by id": DATASET,
        "by doi": [DATASET, DATASET],
        "collections": [SOURCE, LABELS],
        "source imagery": [SOURCE],
        "labels": [LABELS],
    }


def test_a_client_lists_and_fetches_collections_and_items(session):
    """As many items as it asked for, and single ones."""
    said = session.said["collections"]
    assert {SOURCE, LABELS} <= set(said["ids"])
    assert said["fetched"] == LABELS
    assert len(set(said["items"])) == 20
    assert (said["item"], said["as pystac"]) == (said["items"][-1], said["items"][0])


def test_a_client_is_told_the_sizes_of_archives(session):
    """Those that it then downloads."""
    said = session.said["sizes"]
    size = session.said["archive"]["size"]
    assert said["info"] == {
        "collection": LABELS, "dataset": DATASET, "size": size, "types": ["labels"],
    }  # fmt: skip
    assert said["archive"] == size
    assert said["total"] > size


def test_a_client_downloads_archives_skips_resumes_and_overwrites(session):
    """Whatever stands there before."""
    said = session.said["archive"]
    assert Path(said["path"]).name == f"{LABELS}.tar.gz"
    assert (said["skipped"], said["resumed"], said["overwritten"]) == (True, True, True)


def test_a_client_is_told_that_there_are_no_models(session):
    """A list, and for a name the client's own error."""
    said = session.said["models"]
    assert said.pop("ids") == []
    assert all("does not exist" in text for text in said.values())


def test_what_a_client_downloads_is_what_the_mount_shows(session, tmp_path):
    """File by file, of the archive and, where the client can, of filtered assets."""
    mounts.need_fuse("fuse3")
    environ = {"MLHUB_API_KEY": KEY}
    with mounts.mounted(session.root_url, tmp_path, environ=environ) as mount:
        dataset = mount.path / DATASET
        compared = 0
        with tarfile.open(session.said["archive"]["path"]) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                content = tar.extractfile(member).read()
                shown = (dataset / member.name).read_bytes()
                if member.name.endswith(("stac.json", "collection.json")):
                    assert json.loads(shown)["id"] == json.loads(content)["id"]
                else:
                    assert shown == content
                    compared += 1
        assert compared == 24
        if session.said["filtered"]:
            assert session.said["filtered"]["catalog"] > 0
            chips = list((session.folder / "filtered" / DATASET).rglob("*.tif"))
            assert len(chips) == 24
            for chip in chips:
                shown = mount.path / chip.relative_to(session.folder / "filtered")
                assert chip.read_bytes() == shown.read_bytes()
