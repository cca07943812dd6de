"""What tiles are meant to be made of, as far as that is known without loading anything."""

from dataclasses import dataclass
from pathlib import Path

from clay_assets.embedding.checkpoint_cache import cache_folder, known_sha256
from clay_assets.results.fingerprint import Fingerprint, describe_differences
from clay_assets.storage import Store
from clay_model.spec import PREPROCESSING_VERSION


@dataclass(frozen=True)
class Target:
    """How tiles are to be embedded and published; what is None is not known in advance, so not compared.

    Attributes:
        level: `mean`, `patch` or `group`.
        version: Of the published files.
        precision: `fp32` or `bf16`; None where the hardware of the run decides.
        checkpoint_sha256: None where this machine has not worked it out yet.
        preprocessing: `clay_model.spec.PREPROCESSING_VERSION`.
    """

    level: str
    version: int
    precision: str | None = None
    checkpoint_sha256: str | None = None
    preprocessing: int = PREPROCESSING_VERSION

    @classmethod
    def from_settings(
        cls, *, level: str, precision: str, version: int, checkpoint: Store, cache: Path | None = None
    ) -> "Target":
        """What the settings ask for; nothing is downloaded or loaded to find out.

        Args:
            level: CLAY_LEVEL.
            precision: CLAY_PRECISION.
            version: CLAY_VERSION.
            checkpoint: Whose own address is CLAY_CHECKPOINT.
            cache: Folder of downloaded checkpoints; None: the user's.

        Raises:
            StorageError: If the checkpoint's store refuses.
        """
        return cls(
            level=level,
            version=version,
            precision=None if precision == "auto" else precision,
            checkpoint_sha256=known_sha256(checkpoint, cache or cache_folder()),
        )

    def differences(self, made: Fingerprint) -> str:
        """How vectors differ from the settings; "" where they do not."""
        wanted = {
            "level": self.level,
            "precision": self.precision,
            "preprocessing": self.preprocessing,
            "checkpoint_sha256": self.checkpoint_sha256,
        }
        return describe_differences(wanted, made)
