"""Either model's encoder: `v0.encoder.Encoder` or `v15.encoder.Encoder`.

What uses one, whichever it is, relies on these alone: `spec` and `dimensions`, `to_precision`, `context`
(places and dates → two tensors), calling it (pixels and these two → tokens), `pool` (tokens → embeddings).
"""

from clay_model.v0.encoder import Encoder as EncoderV0
from clay_model.v15.encoder import Encoder as EncoderV15

Encoder = EncoderV0 | EncoderV15
