"""`mlhubfs download`: what it downloads, where to, what it says, and how it goes on."""

import contextlib
import hashlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import tarfile
import termios
import time

import pystac
import pytest
from commands import MLHUBFS, User, names, need_root, refused
from faulty import Asset, FaultyServer, Pattern, Reply
from mounted import BINDINGS
from rooms import KEY, answer, mlhub, multihash, real, stac_collection, stac_item

from mlhubfs.download.part import PartFile
from mlhubfs.server.run import LocalServer

SIZE = 30_000_001
DATA = Pattern(SIZE)
TARGET = "c.tar.gz"
CRASHES = int(os.environ.get("MLHUBFS_CRASHES", "2"))


@pytest.fixture
def user(tmp_path):
    made = User(tmp_path)
    yield made
    made.end()


@pytest.fixture
def host():
    """An MLHub with a dataset `d` of one collection `c`, whose archive is `DATA`."""
    with FaultyServer() as server:
        mlhub(server, {"d": {"c": []}})
        server.on("/v1/archive/c/info", answer({"collection": "c", "dataset": "d", "size": SIZE}))
        server.on("/v1/archive/c", Reply(303, {"Location": "/storage?sig=x"}))
        server.on("/storage", Asset(content=DATA))
        yield server


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A local server on the sample."""
    with LocalServer(cache_dir=tmp_path_factory.mktemp("server"), record=True) as server:
        yield server


@pytest.fixture(scope="module")
def debris(tmp_path_factory):
    """The root of a local server on a recorded catalog: 1,412 items in two collections."""
    folder = tmp_path_factory.mktemp("debris")
    packed = folder / "catalog.tar.gz"
    packed.write_bytes(real("catalog_nasa_marine_debris.tar.gz"))
    with tarfile.open(packed) as tar:
        tar.extractall(folder / "catalog", filter="data")
    with LocalServer([folder / "catalog"], cache_dir=folder / "server") as server:
        yield server.root_url


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def root_of(host):
    return f"{host.url}/v1"


class TestArchives:
    def test_a_dry_run_tells_each_size_and_their_sum(self, user, tmp_path):
        """With the recorded dataset and the recorded sizes: 71,311,240,007 bytes."""
        dataset = json.loads(real("bigearthnet_v1_dataset.json"))
        sizes = {"bigearthnet_v1_source": 71138210977, "bigearthnet_v1_labels": 173029030}
        with FaultyServer() as server:
            server.on("/v1/datasets", answer([dataset]))
            for name, size in sizes.items():
                server.on(f"/v1/archive/{name}/info", answer({"collection": name, "size": size}))
            done = user.run("download", "bigearthnet_v1", "--dry-run", source=root_of(server))
        lines = [
            "    71138210977  bigearthnet_v1_source.tar.gz",
            "      173029030  bigearthnet_v1_labels.tar.gz",
            "    71311240007  in all",
        ]
        assert done == (0, "".join(f"{line}\n" for line in lines), "")

    @pytest.mark.parametrize("before", ["", "doi:", "https://doi.org/"])
    def test_a_doi_is_written_as_for_show(self, user, sample, before):
        """Bare or not, in any case."""
        doi = f"{before}10.5072/MLHUBFS.sample-bigearthnet"
        done = user.run("download", "--dry-run", doi, source=sample.root_url)
        assert done.code == 0, done.err
        assert "bigearthnet_v1_labels.tar.gz" in done.out

    def test_a_static_catalog_has_no_archives(self, user, host):
        """Its root neither."""
        host.on("/top.json", answer(stac_collection("top")))
        done = user.run("download", "/", source=f"{host.url}/top.json")
        refused(done, "has no archives", "--assets")

    def test_a_dataset_is_its_collections_archives(self, user, sample, tmp_path):
        """Byte for byte as the server has them; the second time nothing is fetched."""
        doi = "10.5072/mlhubfs.sample-bigearthnet"
        done = user.run("download", doi, "-o", "out", source=sample.root_url)
        assert (done.code, done.err) == (0, "")
        wanted = ["bigearthnet_v1_source.tar.gz", "bigearthnet_v1_labels.tar.gz"]
        assert done.out == "".join(f"out/{name}\n" for name in wanted)
        assert names(tmp_path / "out") == sorted(wanted)
        with tarfile.open(tmp_path / "out" / wanted[1]) as tar:
            assert tar.getnames()[0].startswith("bigearthnet_v1_labels/")
        sample.requests.clear()
        again = user.run("download", "bigearthnet_v1", "-o", "out", source=sample.root_url)
        assert (again.code, again.out) == (0, done.out)
        assert [one.path for one in sample.requests if ".tar.gz" in one.path] == []

    def test_a_terminal_is_shown_how_far_it_is(self, user, host):
        """With the rate and the time that is left."""
        hold = host.hold()
        host.on("/storage", Asset(content=DATA), Asset(content=DATA, hold=hold))
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(ours, (30, 100))
        words = [*MLHUBFS, "download", "c", "--source", root_of(host), "--jobs", "1"]
        with subprocess.Popen(words, env=user.environ, cwd=user.folder, stderr=theirs) as process:
            os.close(theirs)
            shown = ""
            while not re.search(r"c\.tar\.gz: +\d+%.*\d[kM]?/30\.0M \[.*<.*B/s\]", shown):
                shown += os.read(ours, 4096).decode()
            hold.set()
            with contextlib.suppress(OSError):  # the other end is closed
                while os.read(ours, 4096):
                    pass
        os.close(ours)
        assert process.returncode == 0

    def test_to_skip_an_archive_needs_no_network(self, user, tmp_path):
        """Whatever the file holds."""
        (tmp_path / TARGET).write_bytes(b"mine")
        nowhere = "http://127.0.0.1:9/v1"
        done = user.run("download", "c", "--if-exists", "skip", source=nowhere)
        assert done == (0, f"{TARGET}\n", "")
        assert (tmp_path / TARGET).read_bytes() == b"mine"

    def test_to_overwrite_fetches_anew(self, user, host, tmp_path):
        """Also what looks complete."""
        (tmp_path / TARGET).write_bytes(bytes(SIZE))
        assert user.run("download", "c", source=root_of(host)).code == 0
        assert host.to("/storage") == []
        done = user.run("download", "c", "--if-exists=overwrite", source=root_of(host))
        assert done == (0, f"{TARGET}\n", "")
        assert (tmp_path / TARGET).read_bytes() == DATA[:]

    def test_the_key_goes_to_the_api_and_not_to_storage(self, user, host):
        """Neither does it stand in anything that is written or said."""
        user.run("download", "d", source=root_of(host), MLHUB_API_KEY=KEY)
        assert host.to("/v1/archive/c")[0].headers["authorization"] == f"Bearer {KEY}"
        with FaultyServer() as storage:
            storage.on("/storage", Asset(content=b"x"))
            host.on("/v1/archive/c", Reply(303, {"Location": f"{storage.url}/storage"}))
            user.run("download", "d", "--if-exists", "overwrite", source=root_of(host),
                MLHUB_API_KEY=KEY)  # fmt: skip
            assert ["authorization" in one.headers for one in storage.requests] == [False]

    def test_a_dataset_may_have_the_name_of_a_collection(self, user, host, tmp_path):
        """The word is the dataset's, the archive the collection's."""
        host.on("/v1/datasets", answer([{"id": "c", "collections": [{"id": "c"}]}]))
        assert user.run("download", "c", source=root_of(host)) == (0, f"{TARGET}\n", "")
        assert (tmp_path / TARGET).stat().st_size == SIZE

    def test_an_archive_that_is_missing_keeps_no_other_from_coming(self, user, host, tmp_path):
        """It is named at the end, and the exit code says so."""
        host.on("/v1/datasets", answer([{"id": "d", "collections": [{"id": "x"}, {"id": "c"}]}]))
        done = user.run("download", "d", source=root_of(host))
        assert (done.code, done.out) == (1, f"{TARGET}\n")
        assert done.err.startswith("mlhubfs: x.tar.gz: ")
        assert "tries again" not in done.err
        assert (tmp_path / TARGET).stat().st_size == SIZE

    def test_what_there_is_not_is_refused_before_anything_is_fetched(self, user, host):
        """In one line."""
        refused(user.run("download", "c", "nope", source=root_of(host)), "nope")
        assert host.to("/storage") == []


class TestGoingOn:
    def test_an_interrupt_leaves_a_part_and_one_line(self, user, host, tmp_path):
        """And the same command goes on from there."""
        hold = host.hold()
        host.on("/storage", Asset(content=DATA), Asset(content=DATA, hold=hold))
        with user.running("download", "c", MLHUB_ROOT_URL=root_of(host)) as process:
            host.wait_for("/storage", 2)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert said == "mlhubfs: interrupted; the same command goes on where it stopped\n"
        hold.set()
        host.requests.clear()
        host.on("/storage", Asset(content=DATA))
        assert user.run("download", "c", source=root_of(host)).code == 0
        assert (tmp_path / TARGET).read_bytes() == DATA[:]
        assert "bytes=0-" not in [one.headers["range"][:8] for one in host.to("/storage")]

    def test_a_full_disk_leaves_a_part_and_one_line(self, user, host, tmp_path):
        """With more room the same command goes on from there."""
        need_root()
        folder = tmp_path / "small"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", folder], check=True)
        done = user.run("download", "c", "-o", "small", source=root_of(host))
        refused(done, "small/c.tar.gz cannot be written: No space left on device", "goes on")
        assert names(folder) == [f"{TARGET}.mlhubfs-part", f"{TARGET}.mlhubfs-part.json"]
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        host.requests.clear()
        assert user.run("download", "c", "-o", "small", source=root_of(host)).code == 0
        assert (folder / TARGET).read_bytes() == DATA[:]
        asked = [one.headers["range"] for one in host.to("/storage")]
        assert "bytes=0-" not in [one[:8] for one in asked]

    @pytest.mark.parametrize("folder", ["taken", "taken/below"])
    def test_where_nothing_can_be_written_nothing_is_said_to_be_kept(self, user, host, folder):
        """In one line."""
        (user.folder / "taken").write_bytes(b"a file")
        done = user.run("download", "c", "-o", folder, source=root_of(host))
        refused(done, "c.tar.gz cannot be written")
        assert "kept" not in done.err

    @pytest.mark.promise(
        "A download that was interrupted, killed, or stopped by a full disk goes on where it was; "
        "if the file was replaced meanwhile, it starts again."
    )
    @pytest.mark.parametrize("seed", range(CRASHES))
    def test_killed_at_any_point_it_ends_with_the_right_bytes(self, user, host, tmp_path, seed):
        """Against a server that fails, cuts, and at times replaces the file."""
        chance = random.Random(seed)
        versions = [("1", DATA), ("2", DATA), ("3", Pattern(SIZE - 1000))]
        replaced = 0
        requests_left = 0

        def storage(request):
            nonlocal replaced, requests_left
            time.sleep(0.05)  # so that there is a middle to be killed in, and time to take a note
            requests_left -= 1
            if requests_left == 0:
                victim.kill()
            if seed % 3 == 0 and chance.random() < 0.04:
                replaced = min(replaced + 1, 2)
            etag, content = versions[replaced]
            cut = chance.randrange(3_000_000) if chance.random() < 0.2 else None
            asset = Asset(content=content, etag=f'"{etag}"', cut=cut)
            return Reply(503) if chance.random() < 0.1 else asset(request)

        def info(request):
            return answer({"collection": "c", "dataset": "d", "size": len(versions[replaced][1])})

        host.on("/v1/archive/c/info", info)
        host.on("/storage", storage)
        kills = resumed = 0
        for attempt in range(40):
            before = len(host.to("/storage"))
            requests_left = chance.randrange(2, 9) if attempt < 4 else 0
            with user.running(
                "download", "c", "--jobs", "4", MLHUB_ROOT_URL=root_of(host)
            ) as victim:
                victim.communicate(timeout=60)
            kills += victim.returncode == -signal.SIGKILL
            asked = [one.headers["range"] for one in host.to("/storage")[before:]]
            resumed += not any(one.startswith("bytes=0-") for one in asked)
            if victim.returncode == 0:
                break
        print(f"killed {kills} times, resumed {resumed} times, replaced {replaced} times")
        assert victim.returncode == 0
        assert kills
        assert digest(tmp_path / TARGET) == hashlib.sha256(versions[replaced][1][:]).hexdigest()
        assert [one for one in names(tmp_path) if "part" in one] == []


class TestAssets:
    @pytest.mark.parametrize(
        ("words", "count"),
        [
            (["--assets"], 2825),
            (["--collection", "nasa_marine_debris_labels=labels"], 706),
            (["--datetime", "2018-12-15T00:00:00Z"], 9),
            (["--datetime", "2016-01-01/2016-12-31"], 325),
            (["--where", "datetime=2016-01-01..2016-12-31"], 325),
            (["--bbox", "-87.5610,5.9137,-87.5555,15.9191"], 9),
            (["--intersects", "area.geojson"], 37),
        ],
    )
    def test_the_counts_of_the_recorded_catalog_come_out(
        self, user, debris, tmp_path, words, count
    ):
        """As an independent reading of it has counted them."""
        west, south = -87.626953125, 15.95604762305055
        east, north = -87.6214599609375, 15.961329081596643
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        area = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
        (tmp_path / "area.geojson").write_text(json.dumps(area))
        done = user.run("download", "nasa_marine_debris", "--dry-run", *words, source=debris)
        assert (done.code, done.err) == (0, "")
        assert re.search(rf"^ *{count} files in all", done.out, re.MULTILINE), done.out

    def test_the_layout_is_that_of_the_archives(self, user, sample, tmp_path):
        """Each file has the bytes that the mount shows, and the JSON beside it leads to it."""
        words = ("--collection", "bigearthnet_v1_source=B02", "--where", "datetime=2017-07-01..")
        done = user.run("download", "bigearthnet_v1", *words, "-o", "out", source=sample.root_url)
        assert done.code == 0, done.err
        dataset = tmp_path / "out/bigearthnet_v1"
        assert names(dataset) == ["bigearthnet_v1_source", "catalog.json", "dataset.json"]
        chips = sorted(dataset.glob("bigearthnet_v1_source/*/B02.tif"))
        assert done.out == f"{len(chips)} files and {len(chips) + 3} documents in out\n"
        assert 0 < len(chips) < 24
        for chip in chips[:3]:
            path = f"/{chip.relative_to(tmp_path / 'out')}"
            shown = subprocess.run(
                [sys.executable, "-m", "mlhubfs", "cat", path, "-s", sample.root_url],
                env=user.environ, capture_output=True, check=True,
            )  # fmt: skip
            assert chip.read_bytes() == shown.stdout
            item = json.loads((chip.parent / "stac.json").read_text())
            assert item["assets"]["B02"]["href"] == "./B02.tif"

    def test_of_items_with_the_same_id_the_first_is_downloaded(self, user, host, tmp_path):
        """As it is shown; and so the next time, when the index knows it."""
        twins = [stac_item("i", {key: "/store"}) for key in ("B02", "B03")]
        top = stac_collection("c", links=[{"rel": "item", "href": f"{one}.json"} for one in "ab"])
        host.on("/c.json", answer(top))
        host.on("/a.json", answer(twins[0]))
        host.on("/b.json", answer(twins[1]))
        host.on("/store", Asset(content=b"chip"))
        for _ in range(2):
            done = user.run("download", "/", "--assets", source=f"{host.url}/c.json")
            assert (done.code, done.err) == (0, "")
            assert names(tmp_path / "i") == ["B02.tif", "stac.json"]

    def test_files_of_all_items_come_once(self, user, host, tmp_path):
        """They stand in `_common`, and the items' JSON says so."""
        host.on("/store/x", Asset(content=b"chip"))
        host.on("/store/doc.pdf", Asset(content=b"document"))
        items = [stac_item(one, {"B02": "/store/x", "documentation": "/store/doc.pdf"})
            for one in "ab"]  # fmt: skip
        mlhub(host, {"d": {"c": items}})
        assert user.run("download", "d", "--assets", source=root_of(host)).code == 0
        assert names(tmp_path / "d/c") == ["_common", "a", "b", "collection.json"]
        assert names(tmp_path / "d/c/a") == ["B02.tif", "stac.json"]
        item = json.loads((tmp_path / "d/c/a/stac.json").read_text())
        there = tmp_path / "d/c/a" / item["assets"]["documentation"]["href"]
        assert there.read_bytes() == b"document"
        assert len(host.to("/store/doc.pdf")) == 1

    def test_what_failed_is_listed_and_alone_is_tried_again(self, user, host, tmp_path):
        """Its exit code is 1; the next one asks for nothing else but the others' sizes."""
        hrefs = {f"B{number}": f"/store/{number}" for number in range(10, 14)}
        mlhub(host, {"d": {"c": [stac_item("a", hrefs)]}})
        for href in [*hrefs.values()][1:]:
            host.on(href, Asset(content=b"chip"))
        done = user.run("download", "d", "--assets", source=root_of(host))
        assert done.code == 1
        assert done.out == "3 files and 4 documents in .\n"
        first, second = done.err.splitlines()
        assert first.startswith("mlhubfs: d/c/a/B10.tif: ")
        assert second == "1 failed: the same command tries again"
        host.on("/store/10", Asset(content=b"late"))
        host.requests.clear()
        again = user.run("download", "d", "--assets", source=root_of(host))
        assert again == (0, "4 files and 4 documents in .\n", "")
        assert (tmp_path / "d/c/a/B10.tif").read_bytes() == b"late"
        asked = {one.path: one.headers["range"] for one in host.requests if "/store/" in one.path}
        assert asked.pop("/store/10") != "bytes=0-0"
        assert set(asked.values()) == {"bytes=0-0"}

    @pytest.mark.promise(
        "A file that another process is downloading at that moment fails alone: the others come, "
        "and the exit code is 1."
    )
    @pytest.mark.parametrize("taken", ["B02.tif", "stac.json"])
    def test_what_another_process_downloads_alone_fails(self, user, host, tmp_path, taken):
        """The others come; the same command is told to try again."""
        hrefs = {"B02": "/store", "B03": "/store", "B04": "/store"}
        mlhub(host, {"d": {"c": [stac_item("a", hrefs)]}})
        host.on("/store", Asset(content=b"chip"))
        other = PartFile(tmp_path / "d/c/a" / taken, "")
        done = user.run("download", "d", "--assets", source=root_of(host))
        assert done.code == 1
        assert done.err.splitlines() == [
            f"mlhubfs: d/c/a/{taken}: another process is downloading {taken}",
            "1 failed: the same command tries again",
        ]
        other.keep()
        other.release()
        there = {"B02.tif", "B03.tif", "B04.tif", "stac.json"}
        assert set(names(tmp_path / "d/c/a")) == there - {taken}
        assert user.run("download", "d", "--assets", source=root_of(host)).code == 0
        assert set(names(tmp_path / "d/c/a")) == there

    def test_a_file_comes_from_where_it_can_be_had(self, user, host, tmp_path):
        """As in a mount: from its first `alternate` that answers."""
        host.on("/store/x", Asset(content=b"chip"))
        mirrors = {name: {"href": f"/store/{name}"} for name in ("gone", "x")}
        asset = {"href": "/store/lost", "type": "image/tiff", "alternate": mirrors}
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": asset})]}})
        done = user.run("download", "d", "--assets", source=root_of(host))
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "d/c/a/B02.tif").read_bytes() == b"chip"

    def test_bytes_that_the_catalog_does_not_know_are_a_failure(self, user, host, tmp_path):
        """It names the asset and both digests; the file is not there, and is tried again."""
        stored = {"href": "/store/x", "file:checksum": multihash(b"right")}
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": stored, "B03": "/store/x"})]}})
        host.on("/store/x", Asset(content=b"wrong"))
        done = user.run("download", "d", "--assets", source=root_of(host))
        assert (done.code, done.out) == (1, "1 file and 4 documents in .\n")
        expected, found = (hashlib.sha256(one).hexdigest()[:12] for one in (b"right", b"wrong"))
        told, again = done.err.splitlines()
        assert re.match(rf"mlhubfs: d/c/a/B02: c/a/B02 .*expected {expected}.*found {found}", told)
        assert again == "1 failed: the same command tries again"
        assert names(tmp_path / "d/c/a") == ["B03.tif", "stac.json"]
        host.on("/store/x", Asset(content=b"right"))
        assert user.run("download", "d", "--assets", source=root_of(host)).code == 0
        assert (tmp_path / "d/c/a/B02").read_bytes() == b"right"

    def test_the_catalog_alone_is_its_json(self, user, sample, tmp_path):
        """A STAC catalog without assets."""
        words = ("download", "bigearthnet_v1_labels", "--catalog-only")
        assert user.run(*words, source=sample.root_url).code == 0
        found = {path.name for path in (tmp_path / "bigearthnet_v1").rglob("*") if path.is_file()}
        assert found == {"collection.json", "stac.json"}

    def test_the_json_leads_to_what_is_there_and_nowhere_else(self, user, host, tmp_path):
        """Of one download and of the next; a collection without a match is not there."""
        for name in ("x", "y", "own"):
            host.on(f"/store/{name}", Asset(content=b"chip"))
        hrefs = {"B02": "/store/x", "B03": "/store/y"}
        items = [stac_item(one, hrefs, kind=one) for one in "ab"]
        mlhub(host, {"d": {"c": items, "e": [stac_item("f", hrefs, kind="f")]}})
        words = ("download", "d", "--collection", "c=B02", "--collection", "e", "--where")
        assert user.run(*words, "kind=x", source=root_of(host)).code == 0
        assert not (tmp_path / "d").exists()
        assert user.run(*words, "kind=a", source=root_of(host)).code == 0
        assert names(tmp_path / "d") == ["c", "catalog.json", "dataset.json"]
        catalog = pystac.Catalog.from_file(tmp_path / "d/catalog.json")
        assert [sorted(one.assets) for one in catalog.get_items(recursive=True)] == [["B02"]]
        words = ("download", "d", "--where", "kind=a|b")
        assert user.run(*words, source=root_of(host)).code == 0
        catalog = pystac.Catalog.from_file(tmp_path / "d/catalog.json")
        found = list(catalog.get_items(recursive=True))
        assert {one.id: sorted(one.assets) for one in found} == {key: [*hrefs] for key in "ab"}
        shown = user.run("ls", "c", source=str(tmp_path / "d"))
        assert shown.out.split() == ["collection.json", "a", "b"], shown.err

    def test_a_collection_alone_can_be_opened(self, user, host, tmp_path):
        """Its JSON does not lead to that of the dataset, which was not asked for."""
        mlhub(host, {"d": {"c": [stac_item("a", {"B02": "/store"})]}})
        done = user.run("download", "c", "--catalog-only", source=root_of(host))
        assert done.code == 0, done.err
        collection = pystac.Collection.from_file(tmp_path / "d/c/collection.json")
        assert [one.id for one in collection.get_items()] == ["a"]

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--catalog-only"], ["d", "e"]),
            (["--collection", "c=B02"], ["d"]),
            (["--where", "kind=f"], ["e"]),
        ],
    )
    def test_a_slash_is_all_of_the_source(self, user, host, tmp_path, words, expected):
        """Of its datasets what is selected."""
        items = {one: stac_item(one, {"B02": "/store"}, kind=one) for one in "if"}
        mlhub(host, {"d": {"c": [items["i"]]}, "e": {"x": [items["f"]]}})
        host.on("/store", Asset(content=b"chip"))
        done = user.run("download", "/", *words, "-o", "out", source=root_of(host))
        assert (done.code, done.err) == (0, "")
        assert names(tmp_path / "out") == expected
        for name in expected:
            catalog = pystac.Catalog.from_file(tmp_path / "out" / name / "catalog.json")
            assert len(list(catalog.get_items(recursive=True))) == 1

    def test_the_archives_of_a_slash_are_all(self, user, host):
        """Of every dataset."""
        mlhub(host, {"d": {"c": []}, "e": {"x": []}})
        host.on("/v1/archive/x/info", answer({"collection": "x", "dataset": "e", "size": 1}))
        done = user.run("download", "/", "--dry-run", source=root_of(host))
        assert done.out.split()[:4] == [str(SIZE), TARGET, "1", "x.tar.gz"], done.err

    def test_a_dry_run_counts_what_is_not_there(self, user, host):
        """Files and the catalog's documents, one in the singular."""
        host.on("/store", Asset(content=b"chip"))
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store", "B03": "/store"})]}})
        told = user.run("download", "d", "--assets", "--dry-run", source=root_of(host)).out
        assert "2 files in all" in told
        assert "4 documents of the catalog" in told
        done = user.run("download", "d", "--collection", "c=B02", source=root_of(host))
        assert done.out == "1 file and 4 documents in .\n"
        told = user.run("download", "d", "--assets", "--dry-run", source=root_of(host)).out
        assert "1 file in all" in told
        assert "1 document of the catalog" in told
        assert "1 file there already" in told
        assert user.run("download", "d", "--assets", source=root_of(host)).code == 0
        told = user.run("download", "d", "--assets", "--dry-run", source=root_of(host)).out
        assert "0 files in all; 0 bytes" in told
        assert "0 documents" in told

    @pytest.mark.parametrize(
        "words",
        [
            ("d/c/i/B02.tif",) * 3,
            ("d/c/i/B02.tif", "--collection", "c=B02", "d/c/i", "d/c/i"),
            ("d/c/i/B02.tif", "--collection", "c=B02", "c", "d", "/", "d/c/i/B02.tif"),
        ],
    )
    def test_what_is_named_twice_counts_once(self, user, host, words):
        """In a dry run, and when it comes."""
        host.on("/store", Asset(content=b"chip"))
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store", "B03": "/store"})]}})
        told = user.run("download", "--dry-run", *words, source=root_of(host)).out
        one = "1 file in all; its size is known when fetched"
        assert [" ".join(line.split()) for line in told.splitlines()[:2]] == ["1 file d/c", one]
        done = user.run("download", *words, source=root_of(host))
        assert done.out.startswith("1 file and ")
        assert len(host.to("/store")) == 1

    def test_a_file_that_a_directory_does_not_bring_comes_beside_it(self, user, host, tmp_path):
        """An archive, and what the source itself has."""
        mlhub(host, {"d": {"c": []}})
        host.on("/storage", Asset(content=b"archive"))
        host.on("/v1/archive/c/info", answer({"collection": "c", "dataset": "d", "size": 7}))
        words = ("/", "d/c/@archive.tar.gz", "README.txt", "--assets")
        done = user.run("download", *words, source=root_of(host))
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "d/c/@archive.tar.gz").read_bytes() == b"archive"
        assert (tmp_path / "README.txt").exists()

    def test_an_archive_that_is_there_is_not_in_a_dry_run(self, user, host, tmp_path):
        """It would not be downloaded."""
        (tmp_path / TARGET).write_bytes(bytes(SIZE))
        done = user.run("download", "d", "--dry-run", source=root_of(host))
        assert done == (0, "              1 archive there already\n", "")

    def test_a_file_that_is_no_asset_is_counted(self, user, host, tmp_path):
        """README.txt is one."""
        done = user.run("download", "README.txt", source=root_of(host))
        assert done == (0, "0 files and 1 document in .\n", "")
        assert (tmp_path / "README.txt").exists()

    @pytest.mark.parametrize("path", ["d", "d/c/i"])
    def test_an_asset_that_no_item_has_is_named_at_the_end(self, user, host, tmp_path, path):
        """With those that there are; what else is selected comes."""
        host.on("/store", Asset(content=b"chip"))
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store", "B03": "/store"})]}})
        done = user.run("download", path, "--collection", "c=B02,B99", source=root_of(host))
        assert done.code == 1
        assert done.err == "mlhubfs: c has no asset 'B99', but B02, B03\n"
        assert (tmp_path / "d/c/i/B02.tif").exists()

    @pytest.mark.parametrize("words", [(), ("--dry-run",), ("--assets",), ("--catalog-only",)])
    def test_an_empty_word_is_refused(self, user, host, words):
        """It may have been a variable of a shell that was not set."""
        refused(user.run("download", "", *words, source=root_of(host)), "'' means nothing")

    def test_a_path_is_downloaded_as_it_is(self, user, sample, tmp_path):
        """An item with all its files, or one file."""
        folder = "bigearthnet_v1/bigearthnet_v1_source"
        listed = user.run("ls", folder, source=sample.root_url).out.split()
        item, other = (f"{folder}/{one}" for one in listed[1:3])
        done = user.run("download", item, f"{other}/B03.tif", source=sample.root_url)
        assert done.code == 0, done.err
        assert len(names(tmp_path / item)) == 13
        assert names(tmp_path / other) == ["B03.tif"]

    @pytest.mark.parametrize(
        ("words", "files"),
        [
            (["--catalog-only"], {"stac.json"}),
            (["--collection", "c=B02"], {"stac.json", "B02.tif"}),
            (["--bbox", "-3,-3,-2,-2"], set()),
        ],
    )
    def test_a_selection_holds_for_an_item_too(self, user, host, tmp_path, words, files):
        """What was not asked for is not downloaded."""
        host.on("/store", Asset(content=b"chip"))
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store", "B03": "/store"})]}})
        done = user.run("download", "d/c/i", *words, source=root_of(host))
        assert done.code == 0, done.err
        assert {path.name for path in (tmp_path / "d/c/i").glob("*")} == files

    @pytest.mark.parametrize(
        ("words", "files"),
        [
            (["--collection", "c=B02"], ["B02.tif", "stac.json"]),
            (["--collection", "c", "--where", "kind=x"], ["B02.tif", "B03.tif", "stac.json"]),
            (["--catalog-only"], ["stac.json"]),
            (["--where", "kind=y"], []),
            (["--bbox", "100,0,101,1", "--collection", "c=B02"], []),
        ],
    )
    def test_a_selection_holds_for_a_file_too(self, user, host, tmp_path, words, files):
        """As for its item: what was not asked for is not downloaded."""
        host.on("/store", Asset(content=b"chip"))
        item = stac_item("i", {"B02": "/store", "B03": "/store"}, kind="x")
        mlhub(host, {"d": {"c": [item]}})
        paths = [f"d/c/i/{name}" for name in ("B02.tif", "B03.tif", "stac.json")]
        done = user.run("download", *paths, *words, source=root_of(host))
        assert done.code == 0, done.err
        assert sorted(path.name for path in (tmp_path / "d/c/i").glob("*")) == files

    def test_a_file_of_no_selected_collection_is_refused(self, user, host):
        """As its item is."""
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store"})]}})
        for path in ("d/c/i/B02.tif", "d/c/i/stac.json"):
            done = user.run("download", path, "--collection", "x", source=root_of(host))
            refused(done, f"/{path} has no collection 'x', but c")

    @pytest.mark.parametrize(
        ("words", "there"), [(["--catalog-only"], False), (["--collection", "c=own"], True)]
    )
    def test_a_selection_holds_for_a_collections_own_file(self, user, host, tmp_path, words, there):
        """By the key of its asset."""
        host.on("/store", Asset(content=b"own"))
        own = stac_collection("c", {"own": {"href": "/store", "type": "image/tiff"}})
        mlhub(host, {"d": {"c": []}}, collections={"c": own})
        done = user.run("download", "d/c/_common/own.tif", *words, source=root_of(host))
        assert done.code == 0, done.err
        assert (tmp_path / "d/c/_common/own.tif").exists() == there

    @pytest.mark.parametrize("binding", BINDINGS[:1])
    def test_a_path_inside_a_mount_is_one_of_its_source(
        self, user, host, tmp_path, mounted, binding
    ):
        """Whatever $MLHUB_ROOT_URL says; who is in there may name an id all the same."""
        host.on("/store", Asset(content=b"chip"))
        mlhub(host, {"d": {"c": [stac_item("i", {"B02": "/store", "B03": "/store"})]}})
        with mounted(root_of(host), binding=binding) as mount:

            def run(*words, cwd=None):
                words = ("download", *words, "-o", tmp_path)
                return user.run(*words, cwd=cwd, source="http://127.0.0.1:9", **mount.environ)

            assert run(mount.path / "d/c/i/B02.tif").err == ""
            assert run("../i/B03.tif", cwd=mount.path / "d/c/i").err == ""
            assert names(tmp_path / "d/c/i") == ["B02.tif", "B03.tif"]
            assert run("c", "--catalog-only", cwd=mount.path).err == ""
            assert names(tmp_path / "d/c/i") == ["B02.tif", "B03.tif", "stac.json"]
            refused(run(mount.path / "d/c/i", "d"), "give paths inside one mount")
            refused(run(mount.path / "d/none"), f"or path '{mount.path}/d/none'")

    def test_what_a_view_shows_comes_to_where_it_stands(self, user, host, tmp_path):
        """So that the links of its JSON hold."""
        host.on("/store", Asset(content=b"chip"))
        items = [stac_item(one, {"B02": "/store"}, kind=one) for one in "ab"]
        mlhub(host, {"d": {"c": items}})
        assert user.run("download", "d/c/@where/kind=a", source=root_of(host)).code == 0
        assert names(tmp_path / "d/c") == ["a"]
        assert names(tmp_path / "d/c/a") == ["B02.tif", "stac.json"]

    @pytest.mark.parametrize(("path", "above"), [("/", True), ("2020", False)])
    def test_a_static_catalog_comes_with_all_below_it(self, user, host, tmp_path, path, above):
        """Each level with its JSON, whatever that is called."""
        top = stac_collection("top") | {"type": "Catalog", "extent": None}
        year = top | {"id": "2020", "links": [{"rel": "child", "href": "deep.json"}]}
        top["links"] = [{"rel": "child", "href": "2020.json"}]
        deep = stac_collection("deep", links=[{"rel": "item", "href": "i.json"}])
        host.on("/top.json", answer(top))
        host.on("/2020.json", answer(year))
        host.on("/deep.json", answer(deep))
        host.on("/i.json", answer(stac_item("i", {"B02": "./store"})))
        host.on("/store", Asset(content=b"chip"))
        done = user.run("download", "--assets", path, "-o", "out", source=f"{host.url}/top.json")
        assert done.code == 0, done.err
        assert (tmp_path / "out/catalog.json").exists() == above
        assert names(tmp_path / "out/2020") == ["catalog.json", "deep"]
        assert names(tmp_path / "out/2020/deep") == ["collection.json", "i"]
        assert names(tmp_path / "out/2020/deep/i") == ["B02.tif", "stac.json"]

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (["--collection", "x"], "has no collection 'x', but c"),
            (["c", "--collection", "x"], "has no collection 'x', but c"),
            (["--bbox", "1,2,3"], "write west,south,east,north"),
            (["--datetime", "yesterday"], "is no time"),
            (["--where", "labels"], "is no condition"),
            (["--intersects", "none.geojson"], "none.geojson cannot be read"),
        ],
    )
    def test_a_selection_that_means_nothing_is_refused(self, user, host, words, reason):
        """In one line, before anything is fetched."""
        refused(user.run("download", "d", *words, source=root_of(host)), reason)
