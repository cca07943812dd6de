"""What `make demo` needs in place of a bucket and a checkpoint: chips of invented land, untrained weights.

Here: two landscapes (`scenes`) of eroded mountains (`erosion`, `relief`) under plausible cover (`cover`), as
satellites would see them (`rendering`), in files like the bucket's (`chips`); a checkpoint (`checkpoint`);
and a look at what the pipeline made of them (`report`). `python -m clay_assets.demo` runs it.
Not here: anything that the pipeline imports.
"""

from clay_assets.demo.checkpoint import write_untrained_checkpoint
from clay_assets.demo.chips import write_chips_of_tile
from clay_assets.demo.report import show

__all__ = ["show", "write_chips_of_tile", "write_untrained_checkpoint"]
