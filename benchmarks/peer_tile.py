"""Embeds a tile by the original's design, for comparison.

    python -m benchmarks.peer_tile CHIPS CHECKPOINT OUT

A torch DataLoader whose worker processes read with rasterio and normalise on the CPU, the vit-pytorch network
under bf16 autocast, all batches collected in memory, geopandas at the end. CHIPS is a folder, or
s3://bucket/prefix (read through GDAL's /vsis3/ with the AWS_* variables).
"""

import argparse
import datetime
import os
import re
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import torch
from rasterio.warp import transform
from shapely.geometry import box
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peer import PeerV0, embed_with_peer
from clay_model.checkpoint import read_checkpoint
from clay_model.v0.encoder import Encoder
from clay_model.v0.encodings import encode_dates, encode_places

BATCH_SIZE = 10
"""Batch size of the original's data module."""

Item = tuple[Tensor, Tensor, Tensor, str, str, tuple[float, float, float, float], str]


class Chips(Dataset[Item]):
    """Reads one chip at a time."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls

    def __len__(self) -> int:
        return len(self.urls)

    def __getitem__(self, index: int) -> Item:
        url = self.urls[index]
        with rasterio.open(url) as dataset:
            pixels = dataset.read().astype(np.float32)
            bounds, crs, date = tuple(dataset.bounds), str(dataset.crs), str(dataset.tags()["date"])
        xs, ys = transform(crs, "EPSG:4326", [(bounds[0] + bounds[2]) / 2], [(bounds[1] + bounds[3]) / 2])
        place = encode_places([(xs[0], ys[0])])[0]
        day = datetime.date.fromisoformat(date)
        return torch.from_numpy(pixels), place, encode_dates([day])[0], url, date, bounds, crs


def _collate(items: list[Item]) -> tuple[Tensor, Tensor, Tensor, list[Item]]:
    pixels, places, dates, *_ = zip(*items, strict=True)
    rows = [(item[0][:0], *item[1:]) for item in items]  # without the pixels, which are in the batch
    return torch.stack(pixels), torch.stack(places), torch.stack(dates), rows


def _urls(chips: str) -> list[str]:
    if chips.startswith("s3://"):
        import s3fs

        found = s3fs.S3FileSystem().find(chips.removeprefix("s3://"))
        return [f"/vsis3/{key}" for key in sorted(found) if key.endswith(".tif")]
    return sorted(str(path) for path in Path(chips).rglob("*.tif"))


def main() -> None:
    """Embed the chips and write one GeoParquet file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chips")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fp32", action="store_true")
    arguments = parser.parse_args()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    if endpoint:  # GDAL's variables have other names
        os.environ["AWS_S3_ENDPOINT"] = re.sub("^https?://", "", endpoint)
        os.environ |= {"AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = read_checkpoint(arguments.checkpoint).encoder
    if not isinstance(encoder, Encoder):
        raise SystemExit(f"{arguments.checkpoint} is of {encoder.spec.title}, expected one of Clay v0")
    peer = PeerV0(encoder).to(device)
    loader = DataLoader(
        Chips(_urls(arguments.chips)), BATCH_SIZE, num_workers=os.cpu_count() or 1, collate_fn=_collate
    )
    vectors, rows = [], []
    for pixels, places, dates, items in loader:
        batch = (pixels.to(device), places.to(device), dates.to(device))
        vectors.append(embed_with_peer(peer, *batch, bf16=not arguments.fp32).float().cpu())
        rows += items
    frame = geopandas.GeoDataFrame(
        {
            "source_url": [row[3] for row in rows],
            "date": [datetime.date.fromisoformat(row[4]) for row in rows],
            "embeddings": list(torch.cat(vectors).numpy()),
        },
        geometry=[
            geopandas.GeoSeries([box(*row[5])], crs=row[6]).to_crs("OGC:CRS84").iloc[0] for row in rows
        ],
        crs="OGC:CRS84",
    )
    frame.to_parquet(arguments.out, compression="ZSTD", schema_version="1.0.0")


if __name__ == "__main__":
    main()
