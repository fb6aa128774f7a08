"""Servers that others wrote, over files of the test, each in a process of its own.

with http_server(folder) as url: ...       # python -m http.server: ignores ranges
with starlette(folder) as url: ...         # Starlette's StaticFiles: ranges, ETag
with rustac(collection, items) as url: ... # a STAC API
"""

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from commands import until

_STARLETTE = """
import sys
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
app = Starlette()
app.mount("/", StaticFiles(directory=sys.argv[1]))
import uvicorn
listening = __import__("socket").create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
"""


@contextlib.contextmanager
def http_server(folder):
    """Serve a folder with Python's own server."""
    words = (sys.executable, "-u", "-m", "http.server", "0", "-b", "127.0.0.1", "-d", folder)
    with _running(words) as process:
        port = re.search(r"port (\d+)", process.stdout.readline())[1]
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def starlette(folder):
    """Serve a folder with Starlette."""
    if not importlib.util.find_spec("starlette"):
        pytest.skip("starlette is not installed")
    with _running((sys.executable, "-c", _STARLETTE, folder)) as process:
        yield process.stdout.readline().strip()


@contextlib.contextmanager
def rustac(*files):
    """Serve files as a STAC API: collections first."""
    tool = shutil.which("rustac", path=Path(sys.executable).parent)
    if not tool:
        pytest.skip("rustac is not installed beside Python: pip install rustac")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with _running((tool, "serve", "--addr", f"127.0.0.1:{port}", *files)) as process:
        until(lambda: process.poll() is not None or _answers(url), "rustac answers")
        yield url


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _running(words):
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        words, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
