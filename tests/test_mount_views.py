"""Views on real mounts: links as programs see them, and what must not fall into them."""

import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import mounted as mounts
import pytest
from click.testing import CliRunner
from commands import User
from faulty import FaultyServer
from mounted import names
from rooms import mlhub, stac_item
from synthetic import Numbered, SyntheticServer

from mlhubfs.cli import cli, mounting
from mlhubfs.server.run import LocalServer

LABELS = Path("bigearthnet_v1/bigearthnet_v1_labels")
SOURCE = Path("bigearthnet_v1/bigearthnet_v1_source")


@pytest.fixture(scope="module")
def root_url(tmp_path_factory):
    """The local server on the bundled sample."""
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server")) as server:
        yield server.root_url


@pytest.fixture(scope="module")
def sample(root_url, binding, tmp_path_factory):
    """The sample, mounted."""
    with mounts.mounted(root_url, tmp_path_factory.mktemp("views"), binding=binding) as mount:
        yield mount


@pytest.fixture(scope="module")
def showing(root_url, binding, tmp_path_factory):
    """The sample, mounted with its views to be seen."""
    folder = tmp_path_factory.mktemp("showing")
    with mounts.mounted(root_url, folder, "show_views", binding=binding) as mount:
        yield mount


def run(*words, cwd=None):
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.promise(
    "The members of a view are relative symbolic links to what stands in the tree."
)
def test_members_are_relative_links_that_lead_into_the_tree(sample):
    """To lstat a link of the size of its target; through it, the very directory."""
    view = sample.path / LABELS / "@where/labels=Coniferous forest"
    members = names(view)
    assert 0 < len(members) < 24
    for name in members:
        target = os.fspath((view / name).readlink())
        told = (view / name).lstat()
        assert target == f"../../{name}"
        assert stat.S_ISLNK(told.st_mode)
        assert (told.st_size, told.st_nlink) == (len(target), 1)
        assert (view / name).samefile(sample.path / LABELS / name)
        assert "Coniferous forest" in (view / name / "stac.json").read_text()
    with os.scandir(view) as entries:
        assert all(entry.is_symlink() for entry in entries)


@pytest.mark.promise(
    "All conditions of a `@where` path must hold, and `|` is any of the values; what is none is "
    "ENOENT, and the log says why."
)
def test_conditions_join_as_the_readme_shows(sample):
    """In any order; the same as filtering what `stac.json` says."""
    base = sample.path / LABELS / "@where"
    assert names(base / "labels=Pastures|Coniferous forest") == [
        name for name in names(sample.path / LABELS) if name in
        {*names(base / "labels=Pastures"), *names(base / "labels=Coniferous forest")}
    ]  # fmt: skip
    july = "datetime=2017-07-01..2017-07-31"
    both = names(base / july / "cloud_and_shadow=false")
    assert both == names(base / "cloud_and_shadow=false" / july)
    assert both == [one for one in names(base / july) if one in
                    names(base / "cloud_and_shadow=false")]  # fmt: skip
    assert 0 < len(both) < 24
    assert names(sample.path / "@where/tags=land cover/text=bigearthnet") == ["bigearthnet_v1"]
    assert names(sample.path / "bigearthnet_v1/@where/types=labels") == ["bigearthnet_v1_labels"]
    with pytest.raises(FileNotFoundError):
        (base / "datetime=yesterday").stat()
    assert "'yesterday' is no time" in sample.log


@pytest.mark.promise("A view is found by name everywhere, and listed only with `show_views`.")
def test_programs_that_walk_the_tree_do_not_fall_into_views(sample):
    """`find`, `cp -r` and `tar` see what they would see in an archive."""
    assert not [line for line in run("find", sample.path).splitlines() if "/@" in line]
    there = sample.folder / "copy"
    run("cp", "-r", "--no-preserve=mode", sample.path / LABELS, there)
    assert not [path for path in there.rglob("*") if path.name.startswith("@")]
    shutil.rmtree(there)


@pytest.mark.promise("A view is found by name everywhere, and listed only with `show_views`.")
def test_views_are_listed_where_that_was_asked_for(showing):
    """And `find` does not follow their links."""
    assert "@where" in names(showing.path)
    assert "@where" in names(showing.path / "bigearthnet_v1")
    assert {"@where", "@archive.tar.gz"} <= set(names(showing.path / LABELS))
    item = names(showing.path / LABELS / "@where/labels=Pastures")[0]
    assert "@source" in names(showing.path / LABELS / item)
    found = run("find", showing.path / LABELS / "@where", "-type", "l").splitlines()
    assert found
    copied = showing.folder / "copied"
    run("cp", "-r", "--no-preserve=mode", showing.path / "@where", copied)
    assert (copied / "tags=land cover/bigearthnet_v1").is_symlink()
    shutil.rmtree(copied)


def test_where_suggests_what_there_is(sample):
    """Every suggestion is a directory with members."""
    for above in ("", "bigearthnet_v1", LABELS):
        suggested = names(sample.path / above / "@where")
        assert suggested
        for name in suggested:
            if name != "cloud_and_shadow=true" and not name.startswith("seasonal_snow="):
                assert names(sample.path / above / "@where" / name), name


@pytest.mark.promise(
    "A link of `@source` leads to the imagery that an item names, whatever root its links have; a "
    "dead one dangles, and the log says so when it is followed."
)
def test_a_label_leads_to_its_imagery(sample):
    """A band is read through the link."""
    item = names(sample.path / LABELS / "@where/labels=Pastures")[0]
    sources = sample.path / LABELS / item / "@source"
    (source,) = names(sources)
    band = (sources / source / "B04.tif").read_bytes()
    assert band == (sample.path / SOURCE / source / "B04.tif").read_bytes()
    assert (sources / source).readlink() == Path(f"../../../bigearthnet_v1_source/{source}")


@pytest.mark.promise("`@archive.tar.gz` has the size that the server tells, and is read by ranges.")
def test_an_archive_is_read_in_place(sample):
    """By `tar tzf`; its names are those of the directory."""
    path = sample.path / LABELS / "@archive.tar.gz"
    listed = run("tar", "tzf", path).splitlines()
    assert f"{LABELS.name}/collection.json" in listed
    with tarfile.open(path) as tar:
        found = {Path(one.name).parts[1] for one in tar if one.isfile()}
    assert found == set(names(sample.path / LABELS))
    assert path.stat().st_size == len(path.read_bytes())
    assert stat.S_ISREG(path.stat().st_mode)


def test_commands_follow_links(root_url, tmp_path):
    """`mlhubfs ls`, `cat` and `stat` show views as a mount does."""
    user = User(tmp_path)
    view = f"/{LABELS}/@where/labels=Pastures"
    names, modes = [], set()
    for line in user.run("ls", "-l", view, source=root_url).out.splitlines():
        mode, *_, name, arrow, target = line.split()
        assert (arrow, target) == ("->", f"../../{name}")
        names.append(name)
        modes.add(mode)
    assert modes == {"lrwxrwxrwx"}
    assert "symbolic link" in user.run("stat", f"{view}/{names[0]}", source=root_url).out
    text = user.run("cat", f"{view}/{names[0]}/stac.json", source=root_url).out
    assert f'"id": "{names[0]}"' in text


@pytest.mark.promise(
    "A link of `@source` leads to the imagery that an item names, whatever root its links have; a "
    "dead one dangles, and the log says so when it is followed."
)
def test_a_dead_source_dangles(mounted, binding):
    """It is listed and can be read as a link; what it leads to is not there."""
    href = "https://old.example/v0/collections/c/items/gone"
    item = stac_item("a", links=[{"rel": "source", "href": href}])
    with FaultyServer() as host:
        mlhub(host, {"d": {"c": [item]}})
        with mounted(f"{host.url}/v1", binding=binding) as mount:
            sources = mount.path / "d/c/a/@source"
            assert names(sources) == ["gone"]
            assert "leads to nothing" not in mount.log
            with pytest.raises(FileNotFoundError):
                (sources / "gone/stac.json").read_bytes()
            assert "'/d/c/a/@source/gone' leads to nothing" in mount.log


@pytest.mark.promise(
    "A search streams what it finds; it reads a complete listing from the index, else asks a "
    "server that filters and checks its answers, else walks the collection, and ends where its "
    "reader ends."
)
def test_head_does_not_walk_the_collection(mounted, binding):
    """`ls | head -1` of 590,326 items: a page, and one that is read ahead."""
    collections = {"many": Numbered(590_326)}
    with (
        SyntheticServer(collections, datasets={"d": ["many"]}) as server,
        mounted(server.root_url, binding=binding) as mount,
    ):
        view = mount.path / "d/many/@where/datetime=2017-07-01"
        first = run("sh", "-c", f"ls -U '{view}' | head -1").strip()
        assert first == collections["many"][0]["id"]
        assert len(server.to("/collections/many/items?")) <= 3


def test_the_flag_of_the_command_is_the_option(monkeypatch, tmp_path):
    """`mlhubfs mount --show-views`."""
    seen = []

    def mount(sources, *_, **__):
        seen.append(sources[""])
        return []

    monkeypatch.setattr(mounting.mounts, "mount", mount)
    words = ["mount", "--show-views", "http://127.0.0.1:1/v1", str(tmp_path)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert [config.show_views for config in seen] == [True]
