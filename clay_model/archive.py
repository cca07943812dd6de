"""What a checkpoint file holds, before anyone asks what it means: opened safely, or named for what it is.

The file is a zip archive written by PyTorch. It is read with `weights_only=True`: an archive that would need
to run code to be opened is refused. Its tensors are mapped from the file, so what nobody touches is never
read from disk.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

EXPECTED = (
    "expected a Lightning checkpoint of Clay v0 (.ckpt, a zip archive with `state_dict` and"
    " `hyper_parameters`), such as clay-small-70MT-1100T-10E.ckpt"
)


class CheckpointError(ValueError):
    """A file is not a checkpoint that the encoder can be built from; the message says what it is."""


def read_archive(path: Path) -> Mapping[str, Any]:
    """Open a checkpoint file without running anything that is in it.

    Args:
        path: A local file.

    Returns:
        Its content: plain containers, and tensors mapped from the file. They change with the file; copy
        what is to be kept.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no archive of PyTorch's, or would have to run code to be opened.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: {EXPECTED}")
    _check_zip(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} would have to run code ({named[1]}) to be opened, which is never done; {EXPECTED},"
            " saved with plain containers and tensors"
            if named
            else f"{path} is a zip archive whose pickle is damaged; {EXPECTED}"
        ) from None  # PyTorch's own message advises to run the code
    except OSError:
        raise  # the disk's trouble, not the file's
    except Exception as error:  # a damaged pickle is a damaged program: it can fail in any way
        raise CheckpointError(
            f"{path} is a zip archive that PyTorch cannot read as a checkpoint ({_first_line(error)});"
            f" {EXPECTED}"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; {EXPECTED}")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_zip(path: Path) -> None:
    """Refuse what is no zip archive, and an archive whose parts are compressed.

    PyTorch maps tensors from where they lie in the file: of a compressed part it takes the compressed bytes
    for numbers, and notices only where the file ends too soon for one of them.
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
            f" PyTorch stores them plain: take the file as it was before it was packed again. {EXPECTED}"
        )


def _kind_of(path: Path) -> str:
    """What a file that is no zip archive looks like, for an error message."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a truncated zip archive, perhaps an interrupted download"
    if head[8:10] == b'{"':  # after 8 bytes of length, of which the first may be any
        return "a safetensors file"
    if head.startswith(b"\x80"):
        return "a bare pickle (the format before PyTorch 1.6, or not a checkpoint at all), never loaded"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page or XML document, perhaps a download that was refused"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for (run `git lfs pull`)"
    return f"no zip archive (it begins with {head[:8]!r})"
