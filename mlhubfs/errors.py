"""Every way in which mlhubfs fails, and the errno that a program on the mount sees.

    MlhubfsError           EIO         anything below
    ├── NotFound           ENOENT      no such dataset, collection, item, asset or file (404, 410)
    │   └── BadCondition   ENOENT      a filter (`@where/...`) that cannot be understood
    ├── NotADirectory      ENOTDIR     a path goes on below a file
    ├── IsADirectory       EISDIR      a directory was to be read as a file
    ├── ReadOnly           EROFS       something was to be written
    ├── Denied             EACCES      the server refused the key or the link (401, 403)
    ├── Changed            ESTALE      the asset was replaced while it was being read
    ├── Interrupted        EINTR       the reader gave up
    ├── Unavailable        EIO         the server could not be reached, or answers 5xx
    │   ├── TimedOut       ETIMEDOUT   nothing, or not all of it, came within the deadline
    │   ├── Busy           EAGAIN      the server asks to come back later (429)
    │   └── Offline        ENETUNREACH the mount is offline, and what it keeps does not hold this
    ├── BadAnswer          EIO         the server's answer contradicts itself or what was asked
    │   └── Rejected       EIO         the server does not take the question (400, 405, 422, 501)
    ├── NotWritten         EIO         a file on this machine cannot be written: which one, and why
    ├── InUse              EBUSY       another process writes the file that was to be downloaded
    ├── IndexUnusable      EIO         the index on disk fails: what needs it goes on without
    ├── WalkGone           EIO         a walk of the index has ended, or is not where it was left
    ├── CacheUnusable      EIO         the cache cannot be looked over, or is not there
    ├── CacheFull          ENOSPC      the cache may not hold what is to be kept in it
    ├── ConfigError        EINVAL      a setting is unusable: which one, its value, what to try
    └── MountError         EIO         the mount point or FUSE is unusable: why, and the remedy

A message carries the value at fault and what to try. It never carries the API key, nor a download
link: those are permissions. `Unavailable` is what a stale cache may cover for; nothing else is.
"""

import errno


class MlhubfsError(Exception):
    """Base of all errors that mlhubfs raises on purpose."""

    errno: int = errno.EIO


class NotFound(MlhubfsError):
    """The catalog, or the storage behind it, has no such thing."""

    errno = errno.ENOENT


class BadCondition(NotFound):
    """A condition cannot be understood: which one, and how it is written."""

    errno = errno.ENOENT


class NotADirectory(MlhubfsError):
    """A path goes on below something that is a file."""

    errno = errno.ENOTDIR


class IsADirectory(MlhubfsError):
    """A directory was to be read as a file."""

    errno = errno.EISDIR


class ReadOnly(MlhubfsError):
    """The tree is read-only."""

    errno = errno.EROFS


class Denied(MlhubfsError):
    """The server refused the API key, or the storage refused a link even after it was renewed."""

    errno = errno.EACCES


class Changed(MlhubfsError):
    """The asset's validator or size is no longer what it was when the file was opened."""

    errno = errno.ESTALE


class Interrupted(MlhubfsError):
    """The program that asked was interrupted and no longer waits for the answer."""

    errno = errno.EINTR


class Unavailable(MlhubfsError):
    """The server cannot be reached (refused, reset, DNS, TLS) or answers 5xx after all retries."""

    errno = errno.EIO


class TimedOut(Unavailable):
    """The answer did not arrive within the deadline of the operation."""

    errno = errno.ETIMEDOUT


class Busy(Unavailable):
    """The server asks to come back later than the deadline allows (429)."""

    errno = errno.EAGAIN


class Offline(Unavailable):
    """Nothing is asked of any server (`offline`), and neither index nor cache holds the answer."""

    errno = errno.ENETUNREACH


class BadAnswer(MlhubfsError):
    """The answer contradicts itself or the question, so nothing of it is used."""

    errno = errno.EIO


class Rejected(BadAnswer):
    """The server does not take the question: a page too large, a cursor that it has forgotten."""

    errno = errno.EIO


class NotWritten(MlhubfsError):
    """What was downloaded cannot be written: the disk is full, or the folder not ours."""

    errno = errno.EIO


class InUse(MlhubfsError):
    """The file that was to be downloaded is written by another process: only that one is not."""

    errno = errno.EBUSY


class IndexUnusable(MlhubfsError):
    """The index cannot be read or written (disk full, read-only, damaged): go on without it.

    What was in it before is still there, and what was to be written is not, in part or in whole.
    """

    errno = errno.EIO


class WalkGone(MlhubfsError):
    """A walk is no longer there, or no longer where the claim left it: look it up anew."""

    errno = errno.EIO


class CacheUnusable(MlhubfsError):
    """The cache on disk cannot be looked over or changed: not there, damaged, or held by others."""

    errno = errno.EIO


class CacheFull(MlhubfsError):
    """The cache may not hold as much as is to be kept in it."""

    errno = errno.ENOSPC


class ConfigError(MlhubfsError):
    """A setting cannot be used."""

    errno = errno.EINVAL


class MountError(MlhubfsError):
    """The mount could not be made, or not be taken away."""

    errno = errno.EIO
