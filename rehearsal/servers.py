"""Processes of the rehearsal: started, waited for, stopped again; each logs into the scratch folder."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20


class MissingPackage(RuntimeError):
    """A program that the rehearsal needs is not installed; the message names its Debian package."""


def find_program(name: str, package: str, *folders: str) -> Path:
    """A program in one of the folders, or on the PATH.

    Raises:
        MissingPackage: If there is none.
    """
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingPackage(
            f"{name} is not installed: `apt-get install {package}` (the rehearsal installs nothing)"
        )
    return Path(found)


def postgres_folders() -> list[str]:
    """Where Debian keeps PostgreSQL's servers, the newest first."""
    return sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)


POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_isready", "createdb")


def find_postgres() -> dict[str, Path]:
    """PostgreSQL's programs that we need, by name.

    Raises:
        MissingPackage: If one is not installed.
    """
    return {name: find_program(name, "postgresql", *postgres_folders()) for name in POSTGRES_PROGRAMS}


LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port of one of this machine's addresses that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Whether something listens on a port of one of this machine's addresses."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str],
    cwd: Path,
    stop: signal.Signals = signal.SIGTERM,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the length of the block.

    Args:
        name: For messages.
        command: Program and arguments.
        log: Takes what it prints.
        ready: Whether it serves; asked until it does.
        environment: The whole of it.
        cwd: Its working directory.
        stop: Signal that it stops on; its whole process group is killed where that is not enough.
        user: Whom to run it as; None: as we are.

    Raises:
        RuntimeError: If it ends or does not serve in time; the message has the end of its log.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            cwd=cwd,
            user=user,
            start_new_session=True,  # so that Dagster's own children can be stopped with it
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(
                    f"{name} did not start (exit status {process.poll()}); its log ends:\n{tail}"
                )
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what is left of its children
        process.wait()


@contextmanager
def postgres(scratch: Path, host: str = LOOPBACK) -> Iterator[int]:
    """PostgreSQL in a folder of its own, as an ordinary user, on one address only; yields its port.

    Clients are let in without a password: from this machine, and from the subnet of another address than
    loopback.
    """
    programs = find_postgres()
    # PostgreSQL refuses to run as root; Debian's package brings a user for it.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    data, port = scratch / "postgres", free_port(host)
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(data, user)
        scratch.chmod(0o755)  # so that the user reaches its folder
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [programs["initdb"], "-D", data, "-U", "dagster", "-A", "trust", "--no-sync"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd=data,
        user=user if os.geteuid() == 0 else None,
    )
    if host != LOOPBACK:
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet trust\n")
    command = [str(programs["postgres"]), "-D", str(data), "-p", str(port), "-k", str(data)]
    command += ["-c", f"listen_addresses={host}"]
    at = ["-h", host, "-p", str(port), "-U", "dagster"]
    # The port is open some time before the server accepts sessions.
    ready = [str(programs["pg_isready"]), *at, "-d", "postgres", "-q"]
    # Nothing here must survive a power cut.
    command += ["-c", "fsync=off", "-c", "max_connections=200"]
    with running(
        "PostgreSQL",
        command,
        log=scratch / "postgres.log",
        ready=lambda: subprocess.run(ready, check=False, env=environment).returncode == 0,
        environment=environment,
        cwd=data,
        stop=signal.SIGINT,  # its "fast" shutdown: does not wait for clients
        user=user if os.geteuid() == 0 else None,
    ):
        subprocess.run(
            [programs["createdb"], *at, "dagster"],
            check=True,
            env=environment,
        )
        yield port


@contextmanager
def s3(scratch: Path, host: str = LOOPBACK) -> Iterator[tuple[str, Path]]:
    """An S3 server; yields its URL and its log, which has a line for each request."""
    port, log = free_port(host), scratch / "s3.log"
    with running(
        "the S3 server",
        [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
        log=log,
        ready=lambda: answers(port, host),
        environment=os.environ,
        cwd=scratch,
    ):
        yield f"http://{host}:{port}", log


@contextmanager
def dagster(
    scratch: Path, environment: Mapping[str, str], project: Path, host: str = LOOPBACK
) -> Iterator[str]:
    """`dagster-webserver` and `dagster-daemon` over the project's workspace; yields the webserver's URL."""
    port, programs = free_port(host), Path(sys.executable).parent
    workspace = project / "workspace.yaml"
    webserver = [
        str(programs / "dagster-webserver"),
        "-w",
        str(workspace),
        "-h",
        host,
        "-p",
        str(port),
    ]
    daemon = [str(programs / "dagster-daemon"), "run", "-w", str(workspace)]
    daemon_log = scratch / "daemon.log"
    with (
        running(
            "dagster-webserver",
            webserver,
            log=scratch / "webserver.log",
            ready=lambda: answers(port, host),
            environment=environment,
            cwd=project,
        ),
        running(
            "dagster-daemon",
            daemon,
            log=daemon_log,
            ready=lambda: (
                "daemon is running" in daemon_log.read_text(errors="replace").lower()
                or "Instance is configured with the following daemons"
                in daemon_log.read_text(errors="replace")
            ),
            environment=environment,
            cwd=project,
        ),
    ):
        yield f"http://{host}:{port}"
