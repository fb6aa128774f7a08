"""Words on the command line: what they mean, what is printed, how it ends.

Owns the exit codes: 0 done, 1 refused with one line on stderr, 2 not understood. The commands are
in the modules beside this one, by what they are about, and each is loaded when it is given: a
download does not wait for what mounts.
"""

import logging
import os
import pwd
import sys
from importlib import import_module

import click

from mlhubfs.errors import MlhubfsError
from mlhubfs.version import __version__

_MODULES = {
    "demo": "local",
    "mount": "mounting",
    "umount": "mounting",
    "datasets": "looking",
    "collections": "looking",
    "items": "looking",
    "show": "looking",
    "ls": "files",
    "cat": "files",
    "stat": "files",
    "prefetch": "prefetching",
    "cache": "caching",
    "download": "downloading",
    "index": "indexing",
    "status": "indexing",
    "serve": "local",
    "configure": "setup",
    "doctor": "setup",
}
"""Where each command is, in the order of `--help`."""


class _Commands(click.Group):
    """The commands, and what mount(8) calls: `mlhubfs SOURCE MOUNTPOINT -o ...`."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(_MODULES)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command of that name; None if there is none."""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take a URL or a path in the place of a command for the source of a mount."""
        if "/" in args[0]:
            args = ["mount", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Earth-observation training data as a file system.

    Datasets, collections, items and assets are directories and files; only what is read crosses
    the network, once. Try `mlhubfs demo` first: it needs neither an account nor the internet.
    """


def main() -> None:
    """Run the command line; the console script."""
    _open_standard_streams()
    if not os.environ.get("HOME"):
        # mount(8) calls with HOME empty, and every folder of the user's would be looked for in /.
        os.environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
    logging.getLogger("mlhubfs").addHandler(logging.NullHandler())
    try:
        code = cli.main(prog_name="mlhubfs", standalone_mode=False)
    except MlhubfsError as error:
        _end(f"mlhubfs: {error}", 1)
    except click.Abort:
        _end("", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk behind stdout; that `head` has enough is click's. What could not be written
        # goes to nowhere, or Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = f"{error.filename}: " if error.filename else ""
        _end(f"mlhubfs: {where}{error.strerror or error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Put /dev/null where the caller closed one, lest a pipe or socket get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115


def _end(message: str, code: int) -> None:
    if message:
        click.echo(message, err=True)
    sys.exit(code)
