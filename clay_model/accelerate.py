"""The same encoder, done faster: what each kind of device does best.

`accelerate` swaps parts of a plain `Encoder` in place; it changes no name, no shape and no formula, and the
tests hold its results to those of the plain path.
"""

import torch

from clay_model.encoder import Encoder


def accelerate(encoder: Encoder, device: torch.device) -> None:
    """Replace the encoder's linear maps and attention by the fastest there are for its device.

    Args:
        encoder: An encoder on `device`, in its final precision; changed in place.
        device: Where it runs.
    """
