"""Opens a checkpoint file without executing pickled code, or explains what the file is.

The file is a zip archive written by PyTorch: a pickle, which `pickled` reads as data, and the numbers of each
tensor, which are mapped from the file, so that unused tensors are never read from disk.
"""

import mmap
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clay_model.pickled import Storage, read_pickle

EXPECTED = (
    "expected a Lightning checkpoint of Clay v0 or Clay v1.5 (.ckpt, a zip archive with `state_dict` and"
    " `hyper_parameters`), such as clay-small-70MT-1100T-10E.ckpt or clay-v1.5.ckpt"
)

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Header of a part in a zip archive; ends with the lengths of the name and the extra field that follow it."""


class CheckpointError(ValueError):
    """The encoder cannot be built from a file; the message says what the file is."""


def read_archive(path: Path) -> Mapping[str, Any]:
    """Open a checkpoint file without executing any of it.

    Args:
        path: A local file.

    Returns:
        Its content: plain containers, tensors mapped from the file, and a `pickled.Inert` for any other
        object. Tensors change with the file: copy those that you keep.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If PyTorch did not write the file as an archive.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: {EXPECTED}")
    _check_zip(path)
    try:
        content = _read_parts(path)
    except OSError:
        raise  # the disk failed; the file may be fine
    except Exception as error:  # a damaged pickle is a damaged program and can fail in any way
        raise CheckpointError(
            f"{path} is a zip archive that cannot be read as a checkpoint ({_first_line(error)}); {EXPECTED}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; {EXPECTED}")
    return content


def _read_parts(path: Path) -> object:
    """Return the object in the archive's pickle."""
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: part for part in archive.infolist()}
        if any(part.header_offset < 0 for part in parts.values()):
            raise ValueError("its directory has a part that begins before the file")
        pickles = [name for name in parts if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} parts called data.pkl, expected one")
        folder = pickles[0].removesuffix("data.pkl")
        pickled = archive.read(pickles[0])
        order = archive.read(f"{folder}byteorder").decode() if f"{folder}byteorder" in parts else "little"
    if order != sys.byteorder:
        raise ValueError(f"its numbers are {order}-endian, this machine's are {sys.byteorder}-endian")
    with path.open("rb") as file:
        # Copy on write, although nothing writes: PyTorch warns of read-only memory.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def make_tensor(storage: Storage, first: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        part = parts[f"{folder}data/{storage.key}"]
        if not 0 <= storage.count * storage.dtype.itemsize <= part.file_size:
            raise ValueError(f"{part.filename} has {part.file_size} bytes for {storage.count} numbers")
        if not storage.count:
            return torch.empty(0, dtype=storage.dtype).as_strided(size, stride, first)
        name, extra = _LOCAL_HEADER.unpack_from(mapped, part.header_offset)
        start = part.header_offset + _LOCAL_HEADER.size + name + extra
        numbers = torch.frombuffer(mapped, dtype=storage.dtype, count=storage.count, offset=start)
        return numbers.as_strided(size, stride, first)

    return read_pickle(pickled, make_tensor)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_zip(path: Path) -> None:
    """Refuse a file that is not a zip archive, and an archive with compressed parts.

    Tensors are mapped from the file, so compressed bytes would be read as numbers.
    """
    compressed = None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                compressed = [part.filename for part in archive.infolist() if part.compress_type]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is a damaged zip archive ({_first_line(error)}); {EXPECTED}"
        ) from error
    if compressed is None:
        raise CheckpointError(f"{path} is {_kind_of(path)}; {EXPECTED}")
    if compressed:
        raise CheckpointError(
            f"{path} is a zip archive with {len(compressed)} compressed parts ({compressed[0]} first), and"
            f" PyTorch stores them uncompressed: use the file as it was before it was repacked. {EXPECTED}"
        )


def _kind_of(path: Path) -> str:
    """Describe a file that is not a zip archive, for an error message."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a truncated zip archive, perhaps an interrupted download"
    if head[8:10] == b'{"':  # after 8 bytes of length, the first of which can be any byte
        return "a safetensors file"
    if head.startswith(b"\x80"):
        return "a bare pickle (the format before PyTorch 1.6, or not a checkpoint at all), never loaded"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or XML document, perhaps a download that was refused"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for (run `git lfs pull`)"
    return f"not a zip archive (it begins with {head[:8]!r})"
