"""Fetch → decode → batch → encode, concurrently, in bounded memory.

One `ChipStream` serves a whole run: it continues from tile to tile without a pause, so the encoder does not
wait while a tile is written or the next one begins.

    fetchers ──► decoders ──► ready queue  ──► one thread a device ──► outcomes, in order ──► consumer
       ▲                                                 │                                       │
       ├── a slot for each chip with pixels in memory ───┘                                       │
       └── a place for each outcome not taken yet: smaller, and bounded as well ─────────────────┘

    chip_stream.py  ChipStream, the public class: slots, fetchers, the order of the outcomes
    chip_reader.py  fetching and decoding one chip
    ready_queue.py  decoded chips on their way to a device
    device_loop.py  a device's batches and their errors; smaller batches if memory runs out
    launcher.py     moves a batch to the device and its vectors back

Nothing here depends on Dagster, files on disk or the network's architecture.
"""

from clay_assets.embedding.stream.chip_stream import FETCHERS, ChipStream
from clay_assets.embedding.stream.device_loop import EncodingFailed, StreamClock

__all__ = ["FETCHERS", "ChipStream", "EncodingFailed", "StreamClock"]
