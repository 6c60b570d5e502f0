"""Hosts that are namespaces of this machine: a network, a name and mounts of their own, joined by one switch.

The lab runs in namespaces of its own (`enter`), so that all hosts, mounts and processes go when the lab ends, however it ends.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NETWORK = "10.77.0"
SWITCH = f"{NETWORK}.1"
INSIDE = "TESSERA_LAB_INSIDE"


class NotPermitted(Exception):
    """Why no hosts can be made on this machine."""


def enter() -> None:
    """Starts this program again in namespaces of its own, unless it runs in them; returns there."""
    if os.environ.get(INSIDE):
        return
    if missing := [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]:
        raise NotPermitted(f"{', '.join(missing)} not found (Debian: util-linux, iproute2, mount)")
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    attempt = subprocess.run([*command, "true"], capture_output=True, text=True)
    if attempt.returncode != 0:
        raise NotPermitted(attempt.stderr.strip())
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def sh(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class Host:
    """A host with the address NETWORK.number. A process in its namespaces keeps them."""

    def __init__(self, name: str, number: int):
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.port = f"to-{name}"
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", self.port, "master", "switch", "up")
        for words in (f"address add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            sh("ip", "-netns", name, *words.split())
        self.keeper = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", f"hostname {name}; echo; exec sleep inf"],
            stdout=subprocess.PIPE,
        )
        self.keeper.stdout.readline()

    def command(self, *words: str | Path) -> list[str]:
        """`words` as a command on this host. Its working directory is the root."""
        entered = ["nsenter", f"--target={self.keeper.pid}", "--net", "--uts", "--mount"]
        return [*entered, *map(str, words)]

    def connect(self, is_up: bool) -> None:
        """Pulls the cable of the host, or puts it back."""
        sh("ip", "link", "set", self.port, "up" if is_up else "down")

    def remount(self, path: Path, mode: str) -> bool:
        """Makes a mount read-only (`ro`) or writable (`rw`) on this host; false while files of it are being written."""
        command = self.command("mount", "-o", f"remount,bind,{mode}", path)
        return subprocess.run(command, capture_output=True).returncode == 0


def make_switch() -> None:
    mount_memory(Path("/run"), 1 << 20)
    Path("/run/netns").mkdir()
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "switch", "type", "bridge")
    sh("ip", "address", "add", f"{SWITCH}/24", "dev", "switch")
    sh("ip", "link", "set", "switch", "up")


def mount_memory(path: Path, size: int) -> None:
    """A file system in memory with room for `size` bytes."""
    path.mkdir(parents=True, exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", f"size={size}", "lab", path)
