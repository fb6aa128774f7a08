"""Signing at read time: with whose token, when it is new, and that nobody else sees it."""

import importlib
import json
import logging
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from faulty import Asset, FaultyServer, Reply
from rooms import answer, stac_collection, stac_item

from mlhubfs.config import Config, parse_options
from mlhubfs.errors import BadAnswer, ConfigError, Denied, MlhubfsError
from mlhubfs.session import open_session
from mlhubfs.transport.aws import AwsSigner, bucket_of
from mlhubfs.transport.client import Transport
from mlhubfs.transport.sas import SasSigner, container_of, parse_token
from mlhubfs.transport.signers import signer_of
from mlhubfs.transport.signing import Hook, Unsigned

HOST = "account.blob.core.windows.net"
BLOB = f"https://{HOST}/box/a.tif"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of Azure's and Amazon's names that only we believe."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, which makes the certificate of this test")
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    names = f"subjectAltName=DNS:{HOST},DNS:bucket.s3.amazonaws.com,DNS:elsewhere.example.org"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext"
    words = [*command.split(), names, "-out", files[0], "-keyout", files[1]]
    subprocess.run(words, check=True, capture_output=True)
    return files


@pytest.fixture
def storage(certificate, monkeypatch):
    """Azure, Amazon and somebody else, on this machine; `url(host)` is where."""
    lookup = socket.getaddrinfo

    def here(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        outside = name.endswith((".net", ".com", ".org"))
        return lookup("127.0.0.1" if outside else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
    with FaultyServer(tls=certificate) as server:
        server.at = lambda host: f"https://{host}:{server.url.rpartition(':')[2]}"
        yield server


@pytest.fixture
def service():
    """The service of tokens, which gives TOKEN-1, TOKEN-2, ... that expire in an hour."""
    with FaultyServer() as server:
        server.given = 0

        def token(_request):
            server.given += 1
            return answer(_token(f"sig=TOKEN-{server.given}"))

        server.on("/api/sas/v1/token/account/box", token)
        yield server


@pytest.fixture
def transport(service):
    signer = SasSigner(f"{service.url}/api/sas/v1/token")
    transport = Transport(root_url=service.url, signer=signer, backoff=0.001)
    yield transport
    transport.close()


def _token(query, expiry="2999-01-01T00:00:00Z"):
    return {"msft:expiry": expiry, "token": query}


def guarded(accepted):
    """Return a blob that only those with one of the signatures `accepted` may read."""
    blob = Asset(b"blob")
    return lambda request: blob(request) if request.query in accepted else Reply(403)


class TestPlanetaryComputer:
    @pytest.mark.parametrize(
        ("url", "container"),
        [
            (BLOB, "account/box"),
            (f"https://{HOST}/box", "account/box"),
            (f"{BLOB}?sv=1&sig=x", None),
            ("https://account.blob.core.windows.net.example.org/box/a", None),
            ("https://example.org/account.blob.core.windows.net/a", None),
            (f"https://{HOST}/", None),
            (f"https://{HOST}/a%2Fb/c", None),
        ],
    )
    def test_a_blob_is_signed_by_its_container(self, url, container):
        """One with a signature already, and what is not Azure's, is left as it is."""
        assert container_of(url) == container

    def test_a_token_lasts_until_shortly_before_it_expires(self):
        """Then, and not before, another is asked for; a query of the URL's own stays."""
        now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        times, asked = [now], []

        def ask(url):
            asked.append(url)
            return json.dumps(_token(f"sig={len(asked)}", "2026-01-01T01:00:00Z")).encode()

        signer = SasSigner("http://h/token", clock=lambda: times[-1])
        assert signer.sign(f"{BLOB}?x=1", ask) == f"{BLOB}?x=1&sig=1"
        times.append(now + 3539)
        assert signer.sign(BLOB, ask) == f"{BLOB}?sig=1"
        times.append(now + 3541)
        assert signer.sign(BLOB, ask) == f"{BLOB}?sig=2"
        assert asked == ["http://h/token/account/box"] * 2

    def test_two_who_are_refused_with_one_token_get_one_new_one(self):
        """The second finds what the first was given."""
        tokens = iter("12")
        signer = SasSigner("http://h")
        old = signer.sign(BLOB, lambda _: json.dumps(_token(f"sig={next(tokens)}")).encode())
        for _ in range(2):
            signer.renew(old, {})
            new = signer.sign(BLOB, lambda _: json.dumps(_token(f"sig={next(tokens)}")).encode())
            assert new == f"{BLOB}?sig=2"

    @pytest.mark.parametrize(
        "body",
        [b"[]", b"{}", b"<html>", b'{"token": "a b", "msft:expiry": "2026-01-01"}'],
    )
    def test_nonsense_is_no_token(self, body):
        """Nothing of it gets into a URL."""
        with pytest.raises(BadAnswer, match="SAS"):
            parse_token(body)

    def test_it_is_the_signer_of_its_own_catalog(self):
        """Without a word; for a mirror, by name."""
        root = "https://planetarycomputer.microsoft.com/api/stac/v1"
        assert isinstance(signer_of("auto", root), SasSigner)
        assert isinstance(signer_of("auto", "https://h.org/api/stac/v1"), Unsigned)
        assert isinstance(signer_of("planetary-computer", "https://h.org"), SasSigner)

    def test_a_token_is_fetched_once_and_renewed_when_it_is_refused(
        self, transport, service, storage
    ):
        """What storage has revoked is not asked with again."""
        url = f"{storage.at(HOST)}/box/a.tif"
        storage.on("/box/a.tif", guarded({"sig=TOKEN-1"}))
        assert [transport.get_range(url, 0, 4).data for _ in range(2)] == [b"blob"] * 2
        assert service.given == 1
        storage.on("/box/a.tif", guarded({"sig=TOKEN-2"}))
        assert transport.get_range(url, 0, 4).data == b"blob"
        assert service.given == 2
        storage.on("/box/a.tif", Reply(403))
        with pytest.raises(Denied):
            transport.get_range(url, 0, 4)
        assert service.given == 3

    def test_a_container_that_the_service_does_not_know_is_asked_unsigned(
        self, transport, service, storage
    ):
        """It may be public; the service is not asked for each of its blobs."""
        storage.on("/open/a.tif", Asset(b"open"))
        for _ in range(2):
            got = transport.get_range(f"{storage.at(HOST)}/open/a.tif", 0, 4)
            assert got.data == b"open"
        assert len(service.to("/api/sas/v1/token/account/open")) == 1

    def test_a_redirect_to_another_host_takes_no_token_along(self, transport, storage):
        """Each hop is signed for itself, or not at all."""
        elsewhere = f"{storage.at('elsewhere.example.org')}/moved.tif"
        storage.on("/box/a.tif", Reply(302, {"Location": elsewhere}))
        storage.on("/moved.tif", Asset(b"moved"))
        assert transport.get_range(f"{storage.at(HOST)}/box/a.tif", 0, 5).data == b"moved"
        assert [request.query for request in storage.requests] == ["sig=TOKEN-1", ""]

    @pytest.mark.promise(
        "What an asset's URL is signed with goes into the request to its own storage, over https, "
        "and into nothing else."
    )
    def test_the_token_is_in_no_document_log_or_cache(self, service, storage, tmp_path, caplog):
        """Read through the tree, with all that is kept on disk searched afterwards."""
        caplog.set_level(logging.DEBUG)
        root = "/api/stac/v1"
        link = {"rel": "item", "href": "items/one.json"}
        service.on(f"{root}/collection.json", answer(stac_collection("c", links=[link])))
        assets = {"a": f"{storage.at(HOST)}/box/a.tif", "b": f"http://{HOST}/box/b.tif"}
        service.on(f"{root}/items/one.json", answer(stac_item("one", assets)))
        storage.on("/box/a.tif", guarded({"sig=TOKEN-1"}))
        config = Config(
            source=f"{service.url}{root}/collection.json",
            cache_dir=tmp_path,
            sign="planetary-computer",
        )
        with open_session(config) as session:
            assert session.tree.file("/one/a.tif").open().read(0, 4) == b"blob"
            document = session.tree.file("/one/stac.json").open().read(0, 10_000)
        kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"blob" in kept
        for told in (kept, document, caplog.text.encode()):
            assert b"TOKEN" not in told

    def test_nothing_is_signed_over_plain_http(self, service, storage):
        """A token that anybody on the way could read is not asked for."""
        asked = []

        class Spy(Unsigned):
            def sign(self, url, ask):
                asked.append(url)
                return url

        transport = Transport(root_url=service.url, signer=Spy(), backoff=0.001)
        plain = storage.at(HOST).replace("https:", "http:")
        with pytest.raises(MlhubfsError):  # it does not answer in plain http either
            transport.get_range(f"{plain}/box/a", 0, 4)
        transport.close()
        assert asked == []


@pytest.fixture
def credentials(monkeypatch, tmp_path):
    """AWS credentials of the environment, and nothing else of the user's."""
    pytest.importorskip("botocore", reason="botocore is not installed: pip install '.[s3]'")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET-KEY")


class TestS3:
    @pytest.mark.parametrize(
        ("url", "bucket"),
        [
            ("https://buck.s3.amazonaws.com/a", ("buck", None)),
            ("https://my.buck.s3.us-west-2.amazonaws.com/a", ("my.buck", "us-west-2")),
            ("https://s3.amazonaws.com/my.buck/a", ("my.buck", None)),
            ("https://s3-eu-west-1.amazonaws.com/buck/a", ("buck", "eu-west-1")),
            ("https://buck.s3.us-gov-west-1.amazonaws.com/a", ("buck", "us-gov-west-1")),
            ("https://buck.s3.amazonaws.com/a?X-Amz-Signature=1", None),
            ("https://buck.s3.amazonaws.com.evil.org/a", None),
            ("https://evils3.amazonaws.com/a", None),
            ("https://ec2.us-east-1.amazonaws.com/", None),
        ],
    )
    def test_a_bucket_is_known_by_its_host(self, url, bucket):
        """Nothing but S3 is ever signed for."""
        assert bucket_of(url) == bucket

    def test_the_requests_of_one_bucket_are_signed_for_its_region(self, credentials, storage):
        """S3 tells the region when it was guessed wrong; then it is known."""
        transport = Transport(root_url=storage.url, signer=AwsSigner(pays=True))
        bucket = Asset(b"paid")

        def regional(request):
            query = parse_qs(request.query)
            if "/us-west-2/s3/" in query["X-Amz-Credential"][0]:
                return bucket(request)
            return Reply(400, {"x-amz-bucket-region": "us-west-2"})

        storage.on("/a b.tif", regional)
        storage.on("/a%20b.tif", regional)
        url = f"{storage.at('bucket.s3.amazonaws.com')}/a%20b.tif"
        found = [transport.get_range(url, 0, 4) for _ in range(2)]
        transport.close()
        assert [part.data for part in found] == [b"paid"] * 2
        assert found[0].url == url
        assert len(storage.requests) == 3
        query = parse_qs(storage.requests[-1].query)
        assert query["X-Amz-Credential"][0].startswith("AKIATEST/")
        assert query["x-amz-request-payer"] == ["requester"]
        assert "SECRET-KEY" not in str(storage.requests)

    def test_other_hosts_get_no_signature(self, credentials):
        """Not even one that looks like it."""
        url = "https://bucket.s3.amazonaws.com.evil.org/a"
        assert AwsSigner(pays=False).sign(url, None) == url
        signed = AwsSigner(pays=False).sign("https://b.s3.amazonaws.com/k?versionId=7", None)
        assert parse_qs(urlsplit(signed).query)["versionId"] == ["7"]
        assert "request-payer" not in signed

    def test_no_credentials_is_said(self, credentials, monkeypatch):
        """With what sets them."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(Denied, match="AWS_PROFILE"):
            AwsSigner(pays=False).sign("https://b.s3.amazonaws.com/k", None)


class TestHook:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        (tmp_path / "mysigner.py").write_text(
            "def sign(url):\n    return url + '?mine=1' if '//mine.' in url else url\n"
            "def odd(url):\n    return None\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    @pytest.mark.usefixtures("module")
    def test_a_function_of_the_users_signs(self):
        """By its name, as the option has it."""
        setting = parse_options(("sign=mysigner:sign",))["sign"]
        signer = signer_of(setting, "https://h.org")
        assert signer.sign("https://mine.h.org/a", None) == "https://mine.h.org/a?mine=1"
        assert signer.sign("https://h.org/a", None) == "https://h.org/a"

    @pytest.mark.usefixtures("module")
    def test_what_it_returns_is_a_url(self):
        """Else the function is named."""
        with pytest.raises(BadAnswer, match="mysigner:odd"):
            Hook("mysigner:odd").sign("https://h.org/a", None)

    @pytest.mark.usefixtures("module")
    @pytest.mark.parametrize("name", ["mysigner:none", "nosuchmodule:sign"])
    def test_one_that_is_not_there_is_told_at_once(self, name):
        """Not at the first read."""
        with pytest.raises(ConfigError, match=name):
            Hook(name)

    @pytest.mark.parametrize("value", ["", "s4", "a b:c", "os.system"])
    def test_other_words_are_refused(self, value):
        """With those that are known."""
        with pytest.raises(ConfigError, match="planetary-computer"):
            parse_options((f"sign={value}",))
