"""Starts and stops servers for the length of a block; each logs into the scratch folder."""

import contextlib
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


LOOPBACK = "127.0.0.1"
POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_isready", "createdb")


class MissingPackage(RuntimeError):
    """A required program is not installed; the message names its Debian package."""


def find_program(name: str, package: str, *folders: str) -> Path:
    """Return the path of a program, in one of the folders or on the PATH.

    Raises:
        MissingPackage: If it is not installed.
    """
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingPackage(
            f"{name} is not installed: `apt-get install {package}` (the rehearsal installs nothing)"
        )
    return Path(found)


def postgres_folders() -> list[str]:
    """Return the folders in which Debian installs PostgreSQL's servers, newest first."""
    return sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)


def find_postgres() -> dict[str, Path]:
    """Return the paths of the required PostgreSQL programs, by name.

    Raises:
        MissingPackage: If one is not installed.
    """
    return {name: find_program(name, "postgresql", *postgres_folders()) for name in POSTGRES_PROGRAMS}


def free_port(host: str = LOOPBACK) -> int:
    """Return a free TCP port of one of this machine's addresses."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Return whether a server listens on the port."""
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
        log: File for its output.
        ready: Returns whether it serves; polled until it does.
        environment: All environment variables.
        cwd: Working directory.
        stop: Signal that stops it; its process group is killed afterwards.
        user: User to run it as; None: the current user.

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
            os.killpg(process.pid, signal.SIGKILL)  # its remaining children
        process.wait()


def run(
    command: Sequence[str | Path], *, environment: Mapping[str, str], cwd: Path, user: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output and exit status."""
    return subprocess.run(
        command, env=dict(environment), cwd=cwd, user=user, capture_output=True, text=True, check=False
    )


@contextmanager
def postgres(scratch: Path, host: str = LOOPBACK) -> Iterator[int]:
    """Run PostgreSQL with a database `dagster` on one address, as an ordinary user; yield its port.

    Clients need no password, from this machine and from the subnet of an address other than loopback.
    """
    programs = find_postgres()
    # PostgreSQL refuses to run as root; Debian's package creates a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    data, port = scratch / "postgres", free_port(host)
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user)
        scratch.chmod(0o755)  # so that the user can reach its folder
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    initialize: list[str | Path] = [
        programs["initdb"],
        "-D",
        data,
        "-U",
        "dagster",
        "-A",
        "trust",
        "--no-sync",
    ]
    run(initialize, environment=environment, cwd=data, user=user).check_returncode()
    if host != LOOPBACK:
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet trust\n")
    options = {
        "listen_addresses": host,
        "max_connections": "200",
        "fsync": "off",  # the data need not survive a power failure
        "idle_in_transaction_session_timeout": "30s",  # as the settings files in `deploy/` require
    }
    command: list[str | Path] = [programs["postgres"], "-D", data, "-p", str(port), "-k", data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    at = ["-h", host, "-p", str(port), "-U", "dagster"]
    with running(
        "PostgreSQL",
        command,
        log=scratch / "postgres.log",
        # The port opens some time before the server accepts sessions.
        ready=lambda: run([programs["pg_isready"], *at], environment=environment, cwd=data).returncode == 0,
        environment=environment,
        cwd=data,
        stop=signal.SIGINT,  # "fast" shutdown: does not wait for clients
        user=user,
    ):
        run([programs["createdb"], *at, "dagster"], environment=environment, cwd=data).check_returncode()
        yield port


@contextmanager
def s3(scratch: Path, host: str = LOOPBACK) -> Iterator[tuple[str, Path]]:
    """Run an S3 server; yield its URL and its log, one line per request."""
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
    """Run `dagster-webserver` and `dagster-daemon` with the project's workspace; yield the server's URL."""
    port, programs = free_port(host), Path(sys.executable).parent
    workspace = ["-w", str(project / "workspace.yaml")]
    daemon_log = scratch / "daemon.log"
    with (
        running(
            "dagster-webserver",
            [programs / "dagster-webserver", *workspace, "-h", host, "-p", str(port)],
            log=scratch / "webserver.log",
            ready=lambda: answers(port, host),
            environment=environment,
            cwd=project,
        ),
        running(
            "dagster-daemon",
            [programs / "dagster-daemon", "run", *workspace],
            log=daemon_log,
            ready=lambda: "Instance is configured with the following daemons" in daemon_log.read_text(),
            environment=environment,
            cwd=project,
        ),
    ):
        yield f"http://{host}:{port}"
