"""Fetch → decode → batch → encode, all at once, in bounded memory.

One `ChipStream` serves a whole run: it crosses from tile to tile without a pause, so the encoder does not
wait while a tile is written or the next one begins.

    fetchers ──► decoders ──► ready queue  ──► one thread a device ──► outcomes, in order ──► consumer
       ▲                                                 │                                       │
       ├── a slot for each chip with pixels in memory ───┘                                       │
       └── a place for each outcome that nobody has taken yet: smaller, and bounded as well ─────┘

    chip_stream.py   ChipStream: the one public class; slots, fetchers, the order of the outcomes
    ready_queue.py  decoded chips on their way to a device
    device_loop.py   one device's batches: encoding them, smaller ones where memory runs out

Nothing here knows of Dagster, of files on disk or of how the network works.
"""

from clay_assets.embedding.stream.chip_stream import FETCHERS, ChipStream
from clay_assets.embedding.stream.device_loop import EncodingFailed, StreamClock

__all__ = ["FETCHERS", "ChipStream", "EncodingFailed", "StreamClock"]
