"""A proxy between a worker and its coordinator that does to their bytes what networks do.

Plain connections are taken apart into the protocol's frames (docs/protocol.md), so that whole frames can be repeated, lost or
exchanged; over TLS the pieces are what one read returned.
"""

import asyncio
import struct
from dataclasses import dataclass, field
from random import Random

MAGIC = b"TSRA"
HEADER_BYTES = 64
MAXIMUM_PIECE = 16 << 20
SLICE_BYTES = 16 << 10
UP, DOWN = "up", "down"  # to the coordinator, and from it


@dataclass
class Direction:
    """What happens to the bytes that go one way."""

    hold: asyncio.Event = field(default_factory=asyncio.Event)  # set while bytes may pass
    delay: float = 0.0  # seconds that each piece takes longer
    rate: float = 0.0  # bytes per second; 0 for as many as come
    loses: bool = False  # every piece is lost
    # What is done once, to the next piece that is large enough. Only one waits: a link that carries little would else damage
    # every connection, long after the last fault.
    once: str | None = None

    def __post_init__(self) -> None:
        self.hold.set()


@dataclass
class Link:
    """The link of one worker, with the connections that go over it."""

    name: str
    target: tuple[str, int]
    random: Random
    directions: dict[str, Direction] = field(default_factory=lambda: {UP: Direction(), DOWN: Direction()})
    port: int = 0
    connections: set[asyncio.Task] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    async def listen(self, address: str) -> None:
        server = await asyncio.start_server(self._accept, address, 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]

    def reset(self) -> None:
        """Ends all connections with a reset."""
        for task in self.connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.connections.add(task)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=1 << 20)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(UP, reader, far_writer))
                group.create_task(self._pump(DOWN, far_reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ExceptionGroup):
            pass  # The end of a connection, which both sides notice.
        finally:
            for end in writers:
                end.transport.abort()
            self.connections.discard(task)

    async def _pump(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = self.directions[name]
        kept: bytes | None = None  # a piece that waits for its successor to overtake it
        earlier: bytes | None = None
        while True:
            piece = await read_piece(reader)
            await way.hold.wait()
            if way.delay:
                await asyncio.sleep(way.delay)
            if way.loses:
                self._count(f"lose-{name}")
                continue
            pieces = [piece]
            if kept is not None:
                pieces, kept = [piece, kept], None
            elif way.once is not None:
                kind, way.once = way.once, None
                match kind:
                    case "flip":
                        changed = bytearray(piece)
                        bit = self.random.randrange(8 * len(piece))
                        changed[bit // 8] ^= 1 << bit % 8
                        pieces = [bytes(changed)]
                    case "cut":
                        writer.write(piece[: self.random.randrange(len(piece))])
                        await writer.drain()
                        self._count(f"{kind}-{name}")
                        raise ConnectionResetError
                    case "duplicate":
                        pieces = [piece, piece]
                    case "reorder":
                        pieces, kept = [], piece
                    case "replay":
                        pieces = [piece] if earlier is None else [piece, earlier]
                    case "lose":
                        pieces = []
                self._count(f"{kind}-{name}")
            if self.random.random() < 0.1 or earlier is None:
                earlier = piece if len(piece) < 1 << 20 else earlier
            for piece in pieces:
                await self._send(piece, way, writer)

    async def _send(self, piece: bytes, way: Direction, writer: asyncio.StreamWriter) -> None:
        if not way.rate:
            writer.write(piece)
            await writer.drain()
            return
        for begin in range(0, len(piece), SLICE_BYTES):
            part = piece[begin : begin + SLICE_BYTES]
            writer.write(part)
            await writer.drain()
            if way.rate:  # the throttle may have been taken away
                await asyncio.sleep(len(part) / way.rate)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


async def read_piece(reader: asyncio.StreamReader) -> bytes:
    """The next frame; of bytes that are no frame, as many as one read returns."""
    head = await reader.readexactly(4)
    if head != MAGIC:
        return head + await reader.read(1 << 16)
    head += await reader.readexactly(HEADER_BYTES - len(head))
    (length,) = struct.unpack_from("<I", head, 16)
    return head + await reader.readexactly(min(length, MAXIMUM_PIECE))
