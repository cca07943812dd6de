import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import cluster.__main__ as cluster
from cluster import network
from cluster.observing import ChipReads, role_of
from rehearsal import servers

LOG = """10.77.0.11 - - [24/Nov/2026 15:31:00] "GET /chips/33TUG/2020-06-15/claytile_1.tif HTTP/1.1" 200 -
10.77.0.11 - - [24/Nov/2026 15:31:00] "GET /chips?list-type=2&prefix=33TUG/ HTTP/1.1" 200 -
10.77.0.11 - - [24/Nov/2026 15:31:01] "PUT /cluster/chip_embeddings/33TUG.parquet HTTP/1.1" 200 -
10.77.0.12 - - [24/Nov/2026 15:31:02] "GET /chips/33TUG/2020-06-15/claytile_1.tif HTTP/1.1" 200 -
10.77.0.12 - - [24/Nov/2026 15:31:02] "GET /chips/33TUH/2020-06-15/claytile_2.tif HTTP/1.1" 206 -
"""


def test_a_missing_postgresql_is_reported_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "postgres_folders", list)
    monkeypatch.setenv("PATH", "")

    assert cluster.main([]) == 2
    assert capsys.readouterr().err.startswith("initdb is not installed: `apt-get install postgresql`")


def test_chip_reads_are_counted_by_tile_and_host(tmp_path: Path) -> None:
    (tmp_path / "s3.log").write_text(LOG)
    reads = ChipReads(tmp_path / "s3.log")

    assert {tile: Counter(found.values()) for tile, found in reads.by_tile().items()} == {
        "33TUG": {2: 1},
        "33TUH": {1: 1},
    }
    assert reads.addresses() == {"33TUG": {"10.77.0.11", "10.77.0.12"}, "33TUH": {"10.77.0.12"}}
    assert reads.requests() == {"GET chips": 3, "LIST chips": 1, "PUT cluster": 1}


def test_skip_ignores_earlier_requests(tmp_path: Path) -> None:
    (tmp_path / "s3.log").write_text(LOG)
    reads = ChipReads(tmp_path / "s3.log")
    reads.skip()
    assert reads.by_tile() == {}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("/bin/dagster api execute_run {}", "runs"),
        ("/bin/python -m dagster api grpc", "Dagster"),
        ("ray::DashboardAgent", "Ray"),
        ("postgres: dagster dagster 127.0.0.1(1) idle", "PostgreSQL"),
        ("sleep 1", "other"),
    ],
)
def test_the_command_of_a_process_gives_its_role(command: str, role: str) -> None:
    assert role_of(command.split()) == role


def test_hosts_reach_only_one_another() -> None:
    reason = "not root" if os.geteuid() else network.why_not_namespaces()
    if reason:
        pytest.skip(f"namespaces cannot be created: {reason}")
    script = """
import subprocess
from cluster.network import join, switched_network
with switched_network():
    first, second = join(1), join(2)
    shell = f'hostname; bash -c "</dev/tcp/{second.address}/9" 2>&1 | grep -o refused; ip route'
    print(subprocess.run([*first.prefix, 'sh', '-c', shell], capture_output=True, text=True).stdout)
"""
    done = subprocess.run(
        [*network.UNSHARE, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["worker-1", "refused"]  # the host responds, no port listens
    assert "default" not in done.stdout  # no route out of the network
    ip = shutil.which("ip")
    assert ip is not None
    links = subprocess.run([ip, "link"], capture_output=True, text=True, check=True).stdout
    assert "worker-1" not in links
