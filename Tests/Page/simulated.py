"""Workers that speak the job port's protocol and compute nothing: they wait, and report blocks of zeros, which is what an output
holds before anyone writes to it. So a hundred of them take little, and a job lasts as long as a test wants. Also checkpoints for
them to merge.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import re
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTROL, ORDERED = 1, 4


def number(file: str, pattern: str) -> int:
    """A version that both sides have to agree on, as the sources have it."""
    found = re.search(pattern, (ROOT / file).read_text())
    if found is None:
        raise SystemExit(f"{file} has no {pattern}")
    return int(found[1])


NUMERICS = number("Sources/TensorKernels/Kernels.swift", r"numericsVersion = (\d+)")
PROTOCOL = number("Sources/Protocol/Frame.swift", r"protocolVersion: UInt16 = (\d+)")


def crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = crc_table()


def crc32c(data: bytes) -> int:
    """RFC 3720."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def frame(kind: int, sequence: int, body: bytes) -> bytes:
    header = struct.pack(
        "<4sHHIIIIIIQ16sQ", b"TSRA", PROTOCOL, kind, 0, 0, len(body), crc32c(body), 0, 0, sequence, bytes(16), 0
    )
    return header[:12] + struct.pack("<I", crc32c(header)) + header[16:] + body


class Worker:
    """One worker, from its hello until the coordinator closes the connection or `run` is cancelled."""

    def __init__(
        self, name: str, threads: int, seconds: float, failures: float = 0, seed: int = 0, tells_progress: bool = True
    ):
        self.name, self.threads, self.seconds, self.failures = name, threads, seconds, failures
        # Methods on whole matrices write at their end.
        self.tells_progress = tells_progress
        self.random = random.Random(seed)
        self.sequence = 0
        self.running: dict[str, tuple[asyncio.Task, dict, float, float, int]] = {}
        self.digests: dict[int, str] = {}

    async def run(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        reader, self.writer = await asyncio.open_connection(host, int(port))
        memory = 8 << 30
        hello = {"role": "worker", "oldestVersion": PROTOCOL, "newestVersion": PROTOCOL, "numericsVersion": NUMERICS,
                 "build": "0.1.0", "name": self.name, "threads": self.threads, "memory": memory, "tensorMemory": memory,
                 "instance": self.name, "host": self.name}  # fmt: skip
        self.send("hello", hello)
        beats = None
        try:
            while True:
                header = await reader.readexactly(64)
                message = json.loads(await reader.readexactly(struct.unpack_from("<I", header, 16)[0]))
                content = message.get("content")
                match message["type"]:
                    case "welcome":
                        beats = asyncio.create_task(self.beat(content["heartbeatMilliseconds"] / 1000))
                    case "refusal":
                        raise SystemExit(content["error"]["problem"])
                    case "lease":
                        self.begin(content)
                    case "revoke":
                        self.end(content["attempt"])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in [beats, *(entry[0] for entry in self.running.values())]:
                if task:
                    task.cancel()
            self.writer.close()

    def send(self, kind: str, content: dict, frame_type: int = CONTROL) -> None:
        body = json.dumps({"content": content, "type": kind}, sort_keys=True, separators=(",", ":")).encode()
        self.writer.write(frame(frame_type, self.sequence, body))
        self.sequence += 1

    async def beat(self, interval: float) -> None:
        count = 0
        while True:
            await asyncio.sleep(interval * 0.9)
            count += 1
            now = asyncio.get_running_loop().time()
            leases = [
                {"attempt": attempt, "bytesDone": self.tells_progress * int(size * min(0.99, (now - start) / seconds))}
                for _, attempt, start, seconds, size in self.running.values()
            ]
            self.send("heartbeat", {"number": count, "leases": leases})

    def begin(self, lease: dict) -> None:
        attempt, outputs = lease["attempt"], [output for tensor in lease["work"]["tensors"] for output in tensor["outputs"]]
        # Most take about as long; a few are stragglers.
        seconds = self.seconds * self.random.uniform(0.6, 1.4) * (5 if self.random.random() < 0.01 else 1)
        task = asyncio.create_task(self.work(attempt, outputs, seconds))
        start = asyncio.get_running_loop().time()
        self.running[self.key(attempt)] = (task, attempt, start, seconds, sum(output["byteCount"] for output in outputs))

    @staticmethod
    def key(attempt: dict) -> str:
        return f"{attempt['job']} {attempt['shard']} {attempt['epoch']}"

    def end(self, attempt: dict) -> None:
        entry = self.running.pop(self.key(attempt), None)
        if entry:
            entry[0].cancel()

    async def work(self, attempt: dict, outputs: list[dict], seconds: float) -> None:
        if self.random.random() < self.failures:
            await asyncio.sleep(seconds / 4)
            self.running.pop(self.key(attempt), None)
            error = {"code": "io", "problem": "cannot read 65536 bytes at 4096 of the file: Input/output error",
                     "file": "/models/tune/model.safetensors", "advice": "look at the disk of that worker"}  # fmt: skip
            self.send("shardFailed", {"attempt": attempt, "error": error})
            return
        await asyncio.sleep(seconds)
        self.running.pop(self.key(attempt), None)
        digests = [
            [self.zeros(min(output["blockSize"], output["byteCount"] - start))
             for start in range(0, output["byteCount"], output["blockSize"])]
            for output in outputs
        ]  # fmt: skip
        result = {"digests": digests, "statistics": []}
        self.send("shardDone", {"attempt": attempt, "result": result, "delivery": "direct"}, ORDERED)

    def zeros(self, count: int) -> str:
        if count not in self.digests:
            self.digests[count] = hashlib.sha256(bytes(count)).hexdigest()
        return self.digests[count]


async def serve(address: str, workers: list[Worker]) -> None:
    """Runs the workers until they are cancelled or the coordinator is gone."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*(worker.run(address) for worker in workers))


def write_checkpoint(directory: Path, tensors: list[tuple[str, int]]) -> None:
    """A model of zeros, each tensor a vector of so many bfloat16 numbers; the file is sparse."""
    directory.mkdir(parents=True)
    header, offset = {}, 0
    for name, count in tensors:
        header[name] = {"dtype": "BF16", "shape": [count], "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}))
