"""Fixtures for tests that mount: the local server on the sample, and mounts on each libfuse."""

import contextlib
import itertools

import mounted as mounts
import pytest

from mlhubfs.server.run import LocalServer


@pytest.fixture(params=mounts.BINDINGS, scope="session")
def binding(request):
    """Each of the two bindings in turn."""
    mounts.need_fuse(request.param)
    return request.param


@pytest.fixture
def server(tmp_path):
    """The local server on the bundled sample; `requests` are those answered so far."""
    with LocalServer(cache_dir=tmp_path / "server", record=True) as running:
        yield running


@pytest.fixture
def mounted(tmp_path):
    """`mounted(source, *options, binding=, allow=, environ=)`: see the module of that name."""
    numbers = itertools.count(1)

    @contextlib.contextmanager
    def make(source, *options, **settings):
        folder = tmp_path / f"mount-{next(numbers)}"
        folder.mkdir()
        with mounts.mounted(source, folder, *options, **settings) as mount:
            yield mount

    return make
