"""A door in front of a Prefect server that can shut its stream of events and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from multiprocessing.synchronize import Event
from typing import Final

__all__ = ["EventDoor"]

_STREAM: Final = b"/api/events/out"


class EventDoor:
    """Forwards TCP from ``port`` to ``target`` in a process of its own. ``shut`` ends and refuses subscriptions."""

    def __init__(self, port: int, target: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        context = multiprocessing.get_context("spawn")
        self._shut, ready = context.Event(), context.Event()
        self._process = context.Process(target=_serve, args=(port, target, self._shut, ready), daemon=True)
        self._process.start()
        if not ready.wait(20):
            raise TimeoutError("the door did not open")

    def shut(self) -> None:
        self._shut.set()

    def open(self) -> None:
        self._shut.clear()

    def close(self) -> None:
        self._process.terminate()
        self._process.join(5)


def _serve(port: int, target: int, shut: Event, ready: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_forward(port, target, shut, ready))


async def _forward(port: int, target: int, shut: Event, ready: Event) -> None:
    streams: set[asyncio.StreamWriter] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        is_stream = _STREAM in first.split(b"\r\n", 1)[0]
        if is_stream and shut.is_set():
            writer.close()
            return
        try:
            there, to = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        to.write(first)
        if is_stream:
            streams.update((writer, to))
        await asyncio.gather(pump(reader, to), pump(there, writer))
        streams.difference_update((writer, to))

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    ready.set()
    async with server:
        while True:
            await asyncio.sleep(0.1)
            if shut.is_set():
                for stream in list(streams):
                    stream.close()
