"""A file that appears whole under its name, or not at all; compressed and hashed while it is written."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, Protocol, cast

from taskcenter.errors import StepFailed

__all__ = ["Compression", "WrittenFile", "reading", "writing"]

Compression = Literal["none", "gzip", "zstd"]
SUFFIX: dict[str, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_PART = ".taskcenter-part"


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class WrittenFile:
    """What is being written: ``write`` takes bytes; ``bytes`` and ``sha256`` are of the finished file.

    ``part`` is where it stands meanwhile; after ``finish`` it can be read from there.
    """

    def __init__(self, file: IO[bytes], part: Path, compression: Compression) -> None:
        self._file, self._packer = file, _packer(compression)
        self._hash = hashlib.sha256()
        self._finished = False
        self.part, self.compression = part, compression
        self.bytes = 0
        self.sha256 = ""

    def write(self, data: bytes) -> None:
        self._put(self._packer.compress(data))

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self._hash.update(data)
            self.bytes += len(data)

    def finish(self) -> None:
        """All is written: flush to the disk. Once is enough."""
        if not self._finished:
            self._finished = True
            self._put(self._packer.flush())
            self._file.flush()
            os.fsync(self._file.fileno())
            self.sha256 = self._hash.hexdigest()


@contextmanager
def writing(path: Path, compression: Compression = "none") -> Iterator[WrittenFile]:
    """Write ``path`` (mode 0600) beside its name; at a good end it is flushed to the disk and gets the name at once.

    After an error nothing is left, and what stood under the name before still does. What an earlier process that was
    killed left in the folder is removed. Raises StepFailed (``error_type="file"``) when the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_left_over(path.parent)
        with _open_part(part) as file:
            written = WrittenFile(file, part, compression)
            yield written
            written.finish()
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StepFailed(
            f"{path} cannot be written: {error.strerror or error}; nothing was left under that name",
            error_type="file",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _open_part(part: Path) -> IO[bytes]:
    """The part, made and locked. Another writer that begins between the two takes it for one that was left over."""
    while True:
        file = open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=1 << 18)  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _remove_left_over(folder: Path) -> None:
    """Parts whose writer is gone: its lock went with it."""
    for part in folder.glob(f".*{_PART}"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _packer(compression: Compression) -> _Packer:
    if compression == "gzip":
        return zlib.compressobj(6, zlib.DEFLATED, 31)
    if compression == "zstd":
        return cast(_Packer, _zstandard().ZstdCompressor(level=3).compressobj())
    return _Plain()


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise StepFailed(
            "zstd is not available here: install the Python package zstandard, or set compress to gzip",
            error_type="compression",
        ) from None
    return zstandard


@contextmanager
def reading(path: Path, compression: Compression) -> Iterator[IO[bytes]]:
    """The unpacked content of a file that ``writing`` made."""
    with path.open("rb") as file:
        if compression == "gzip":
            with gzip.open(file, "rb") as unpacked:
                yield cast(IO[bytes], unpacked)
        elif compression == "zstd":
            yield io.BufferedReader(_zstandard().ZstdDecompressor().stream_reader(file))
        else:
            yield file
