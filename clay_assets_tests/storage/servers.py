"""Runs rclone's S3 server and Azurite as processes on loopback. Azurite (from npm) may be missing."""

import base64
import hashlib
import hmac
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from clay_assets_tests.s3_server import ACCESS_KEY, SECRET_KEY, free_port, running

_IN_BUILD = Path(__file__).parents[2] / "build/azurite/node_modules/.bin/azurite-blob"
AZURITE = shutil.which("azurite-blob") or (str(_IN_BUILD) if _IN_BUILD.exists() else None)
ACCOUNT = "devstoreaccount1"
# Azurite's only account; Microsoft publishes its key: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def rclone() -> Iterator[str]:
    """Runs rclone's S3 server in memory within the block; yields its URL."""
    port = free_port()
    command = [_rclone(), "serve", "s3", ":memory:", "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "off"]
    with running(command, f"http://127.0.0.1:{port}") as endpoint:
        yield endpoint


def _rclone() -> str:
    import sysconfig

    return shutil.which("rclone", path=sysconfig.get_path("scripts")) or "rclone"


@contextmanager
def azurite() -> Iterator[str]:
    """Runs Azurite in memory within the block; yields the URL of its account."""
    port = free_port()
    command = [str(AZURITE), "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    command += ["--disableTelemetry", "--skipApiVersionCheck"]
    with running(command, f"http://127.0.0.1:{port}") as endpoint:
        yield f"{endpoint}/{ACCOUNT}"


def azure_environment(endpoint: str) -> dict[str, str]:
    """Variables that point Azure's clients to Azurite."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        "AZURE_STORAGE_ENDPOINT": endpoint,
    }


def create_container(endpoint: str, name: str, public: bool = False) -> None:
    """Creates a container, by a request signed as Azure's Shared Key scheme requires."""
    headers = {
        "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "x-ms-version": "2021-08-06",
    }
    if public:
        headers["x-ms-blob-public-access"] = "container"
    signed = "".join(f"{header}:{headers[header]}\n" for header in sorted(headers))
    text = "PUT" + 12 * "\n" + signed + f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    request = urllib.request.Request(  # noqa: S310 - http, on loopback
        f"{endpoint}/{name}?restype=container", method="PUT", headers={**headers, "Content-Length": "0"}
    )
    with urllib.request.urlopen(request):  # noqa: S310 - as above
        pass
