"""Fetch → decode → batch → encode, concurrently, in bounded memory.

One `ChipStream` serves a whole run: it continues from tile to tile without a pause, so the encoder does not
wait while a tile is written or the next one begins.

    fetchers ──► decoders ──► ready queue  ──► one thread a device ──► outcomes, in order ──► consumer
       ▲                                                 │                                       │
       ├── a slot for each chip with pixels in memory ───┘                                       │
       └── a place for each outcome not taken yet: smaller, and bounded as well ─────────────────┘

    chip_stream.py  ChipStream, the public class: slots, fetchers, the order of the outcomes
    ready_chips.py  fetching and decoding one chip; the queue of decoded chips
    device_loop.py  a device's batches and their errors; smaller batches if memory runs out

Nothing here depends on Dagster, files on disk or the network's architecture.
"""

from clay_assets.embedding.stream.chip_stream import ChipStream
from clay_assets.embedding.stream.device_loop import EncodingFailed

__all__ = ["ChipStream", "EncodingFailed"]
