"""Downloads the checkpoint to a volume once, and refuses a file with another SHA-256 than expected.

    python fetch_checkpoint.py s3://bucket/key /checkpoints/clay.ckpt SHA256

The Job in `manifests.yaml` runs it. An existing file with the expected hash is kept. The AWS_* variables
configure access to the bucket.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clay_assets.storage import Store


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Download the file and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="s3://bucket/key, or a path")
    parser.add_argument("target", type=Path, help="file on the volume")
    parser.add_argument("sha256", help="expected SHA-256 in hexadecimal")
    options = parser.parse_args(arguments)
    if options.target.is_file() and sha256_of(options.target) == options.sha256:
        print(f"{options.target} exists and has the expected SHA-256")
        return 0
    partial = options.target.with_name(f"{options.target.name}.{os.getpid()}.part")
    try:
        Store(options.source).fetch_to("", partial)
        found = sha256_of(partial)
        if found != options.sha256:
            print(
                f"{options.source} has SHA-256 {found}, expected {options.sha256}: not kept", file=sys.stderr
            )
            return 1
        partial.replace(options.target)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{options.source} was downloaded to {options.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
