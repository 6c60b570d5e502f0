"""Memory for outputs that is really there when it is needed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 8 << 20
# So much lies free before it is needed. It is filled in less than two seconds, for which Linux leaves free pages alone.
AHEAD = 1 << 30
POLL_SECONDS = 0.02


@contextmanager
def ready_memory(directory: Path, size: int) -> Iterator[None]:
    """While the body writes `size` bytes under `directory`, which is in memory, it finds pages that are really there.

    A virtual machine's host takes back memory that lies free for some seconds; whoever touches it first then waits for
    the host, which makes a run several times as long. So a file holds the memory, and gives it up as the outputs grow.
    Its small pages are the first that the kernel hands out again; huge ones lie behind those that the host has taken.
    """
    filler = directory / "filler"
    ended = threading.Event()
    with open(filler, "wb", buffering=0) as file:
        for begin in range(0, size, CHUNK):
            file.write(bytes(min(CHUNK, size - begin)))

        file.truncate(max(0, size - AHEAD))

        def give_up() -> None:
            held = size - AHEAD
            while held > 0 and not ended.wait(POLL_SECONDS):
                held = size - AHEAD - written(directory, filler)
                file.truncate(max(0, held))

        thread = threading.Thread(target=give_up, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            filler.unlink()


def written(directory: Path, filler: Path) -> int:
    """Bytes of memory that the files under a directory take, the filler aside."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            if path != str(filler):
                try:
                    total += os.lstat(path).st_blocks * 512
                except FileNotFoundError:
                    pass  # renamed since it was listed
    return total
