"""The hosts: network namespaces with one address and name each, joined by a bridge; or plain loopback.

The program first moves into its own namespaces of network, mounts and processes. From there only loopback
and the hosts' addresses can be reached, and the kernel removes everything when the program ends, even if it
is killed. Where namespaces are not permitted, all hosts are this machine.
https://man7.org/linux/man-pages/man7/namespaces.7.html
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

SUBNET = "10.77.0"
"""Subnet of the bridge. It cannot clash with other addresses, because the network has no others."""

INSIDE = "--inside"
"""Option that says that the program runs in its own namespaces."""

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")

PROBE = """mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up &&
ip link add probe type bridge && ip netns add probe &&
ip netns exec probe unshare --uts --pid --fork --mount-proc hostname probe"""
"""Tries everything that the hosts need, in namespaces that end with it."""


@dataclass(frozen=True)
class Host:
    """A machine of the cluster.

    Attributes:
        name: Host name.
        address: IPv4 address.
        prefix: Program and arguments that run a command on it; empty: this machine.
    """

    name: str
    address: str
    prefix: tuple[str, ...] = ()

    @property
    def is_namespace(self) -> bool:
        """Whether it has its own network."""
        return bool(self.prefix)

    def cut_off(self) -> None:
        """Take its network link down."""
        if self.is_namespace:
            _ip("link", "set", self.name, "down")


def why_not_namespaces() -> str:
    """Return why namespaces cannot be created here, or "" if they can."""
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (util-linux, iproute2)"
    tried = subprocess.run([*UNSHARE, "sh", "-c", PROBE], capture_output=True, text=True, check=False)
    return (tried.stderr.strip().splitlines() or [""])[-1] if tried.returncode else ""


def move_into_namespaces(arguments: Sequence[str]) -> None:
    """Replace this program by the same one in its own namespaces. Does not return.

    Args:
        arguments: Command line of the program.
    """
    command = [*UNSHARE, sys.executable, "-m", "cluster", INSIDE, *arguments]
    os.execvp(command[0], command)  # noqa: S606 - a fixed command


@contextmanager
def switched_network() -> Iterator[str]:
    """Create a bridge with this program's host on it and yield its address."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # noqa: S607 - Debian's
    os.mkdir("/run/netns")  # noqa: PTH102 - where `ip netns` keeps its names
    _ip("link", "set", "lo", "up")
    _ip("link", "add", "switch", "type", "bridge")
    _ip("addr", "add", f"{SUBNET}.1/24", "dev", "switch")
    _ip("link", "set", "switch", "up")
    yield f"{SUBNET}.1"  # the kernel removes it all with the namespaces


def join(number: int) -> Host:
    """Add a host to the switched network.

    Args:
        number: Number of the host, from 1.
    """
    name, address = f"worker-{number}", f"{SUBNET}.{10 + number}"
    _ip("netns", "add", name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", name, "master", "switch", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    # Its processes see only each other and its name, and end together like those of a machine.
    own = ("unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
    shell = ("sh", "-c", 'hostname "$0" && exec "$@"', name)
    return Host(name, address, ("ip", "netns", "exec", name, *own, *shell))


def on_loopback(number: int) -> Host:
    """Return a host that is this machine, on loopback.

    Args:
        number: Number of the host, from 1.
    """
    return Host(f"worker-{number}", "127.0.0.1")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)  # noqa: S607 - Debian's iproute2
