#!/usr/bin/env python3
"""Measures a coordinator among strangers, and what TLS costs. Needs a release build and openssl.

  crowd.py FAMILY OUT        FAMILY as make_family.py makes it; OUT a directory on a fast file system

Prints medians of the seconds that a job takes which returns its blocks (`ties` over two tunes, three workers):
  alone      on plain TCP
  crowd      the same beside 2,000 idle connections and 200 that send a byte a second of a frame
  tls        alone, over TLS with certificates
and the seconds until the last of 200 TLS handshakes that begin at once is over.
"""

import argparse
import selectors
import shutil
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from contenders import credentials

ROOT = Path(__file__).resolve().parents[2]
TESSERA = ROOT / ".build/release/tessera"
RECIPE = """merge_method: ties
base_model: {family}/base
models:
- {{model: {family}/tune-0, parameters: {{weight: 0.6, density: 0.5}}}}
- {{model: {family}/tune-1, parameters: {{weight: 0.4, density: 0.5}}}}
"""
# A frame's header begins so: a stranger that sends it byte by byte looks like a slow peer.
SLOW_BYTES = b"TSRA" + struct.pack("<HH", 4, 1) + bytes(56)


class Cluster:
    """A coordinator and three workers on loopback."""

    def __init__(self, stack: ExitStack, certificates: Path | None):
        self.credentials = {name: credentials(certificates, name) for name in ("127.0.0.1", "submitter")}
        coordinator = stack.enter_context(
            process(["coordinator", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", *self.credentials["127.0.0.1"]])
        )
        line = coordinator.stdout.readline()
        self.address = line.split("jobs on ")[1].split(",")[0]
        for number in range(3):
            arguments = ["--coordinator", self.address, "--threads", "1", "--blocks", "return", "--name", f"w{number}"]
            stack.enter_context(process(["worker", *arguments, *self.credentials["127.0.0.1"]]))

    def seconds(self, recipe: Path, out: Path) -> float:
        shutil.rmtree(out, ignore_errors=True)
        begin = time.monotonic()
        command = [TESSERA, "submit", recipe, out, "--wait", "--coordinator", self.address, *self.credentials["submitter"]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin


class process:
    """A tessera process that ends with its block."""

    def __init__(self, arguments: list[str]):
        self.arguments = arguments

    def __enter__(self) -> subprocess.Popen:
        self.running = subprocess.Popen(
            [TESSERA, *self.arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return self.running

    def __exit__(self, *_: object) -> None:
        self.running.kill()
        self.running.wait()


class Crowd(threading.Thread):
    """Idle and slow connections from several hosts, opened again as the coordinator closes them.

    One address may hold half of all connections, so a crowd from the submitter's own would keep the submitter out.
    """

    HOSTS = 8

    def __init__(self, address: str, idle: int, slow: int):
        super().__init__(daemon=True)
        host, port = address.rsplit(":", 1)
        self.address, self.idle, self.slow = (host, int(port)), idle, slow
        self.opened = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        sockets: dict[socket.socket, int | None] = {}

        def connect(sent: int | None) -> None:
            host = f"127.0.0.{2 + self.opened % self.HOSTS}"
            connection = socket.create_connection(self.address, source_address=(host, 0))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
            sockets[connection] = sent
            self.opened += 1

        for number in range(self.idle + self.slow):
            connect(0 if number < self.slow else None)
        while not self.is_over.wait(1):
            for key, _ in selector.select(0):
                sent = sockets.pop(key.fileobj)
                selector.unregister(key.fileobj)
                key.fileobj.close()
                connect(None if sent is None else 0)
            for connection, sent in list(sockets.items()):
                if sent is None:
                    continue
                try:
                    connection.send(SLOW_BYTES[sent : sent + 1])
                except OSError:
                    continue
                sockets[connection] = min(sent + 1, len(SLOW_BYTES) - 1)
        for connection in sockets:
            connection.close()


def handshakes(address: str, certificates: Path, count: int = 200) -> float:
    """Seconds until the last of `count` handshakes that begin at once is over."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "submitter.pem", certificates / "submitter.key")
    host, port = address.rsplit(":", 1)
    ready = threading.Barrier(count + 1)
    ends: list[float] = []

    def shake() -> None:
        ready.wait()
        with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host):
            ends.append(time.monotonic())

    threads = [threading.Thread(target=shake) for _ in range(count)]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    ready.wait()
    for thread in threads:
        thread.join()
    if len(ends) != count:
        sys.exit(f"only {len(ends)} of {count} handshakes succeeded")
    return max(ends) - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recipe = work / "recipe.yml"
        recipe.write_text(RECIPE.format(family=arguments.family.resolve()))
        out = arguments.out.resolve() / "crowd-out"
        certificates = work / "certificates"
        subprocess.run([ROOT / "Deploy/tls", certificates, "127.0.0.1"], check=True, stdout=subprocess.DEVNULL)
        plain, secure = Cluster(stack, None), Cluster(stack, certificates)
        found: dict[str, list[float]] = {"alone": [], "tls": [], "crowd": []}
        for cluster in (plain, secure):
            cluster.seconds(recipe, out)  # brings the inputs into the page cache
        # Alternating, so that a slow minute affects all alike.
        for _ in range(arguments.runs):
            found["alone"].append(plain.seconds(recipe, out))
            found["tls"].append(secure.seconds(recipe, out))
            crowd = Crowd(plain.address, idle=2000, slow=200)
            crowd.start()
            while crowd.opened < 2200:
                time.sleep(0.1)
            found["crowd"].append(plain.seconds(recipe, out))
            crowd.is_over.set()
            crowd.join()
        alone = statistics.median(found["alone"])
        for name, seconds in found.items():
            median = statistics.median(seconds)
            spread = (max(seconds) - min(seconds)) / median
            print(f"{name:8} {median:7.2f} s  {median / alone:5.2f}x alone  spread {100 * spread:.0f} %")
        print(f"200 TLS handshakes at once: {handshakes(secure.address, certificates):.2f} s")
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
