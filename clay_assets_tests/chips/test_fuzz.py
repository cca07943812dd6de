"""Thousands of damaged files, and files of other formats named like chips."""

import ctypes
import io
import os
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.errors import RasterioIOError
from rasterio.io import MemoryFile

from clay_assets.chips import ChipRejected, read_chip
from clay_assets_tests.chips.fuzz import MEMORY, fuzz
from clay_assets_tests.geotiffs import chip_bytes, chip_name, chip_pixels, good_chip

MUTANTS = 5_000


def test_mutants_do_not_crash_hang_print_or_fill_memory_and_respect_checksums() -> None:
    found = fuzz(range(MUTANTS))

    assert found.failures == []
    assert sum(found.reasons.values()) == MUTANTS
    assert found.memory < MEMORY
    # Mutants reach the decoder, and some are valid.
    assert found.reasons["corrupt"] > MUTANTS / 4
    assert found.unchanged > MUTANTS / 50


@dataclass
class Canary:
    """A folder of files that must not be opened, and an address that must not be requested.

    Attributes:
        folder: Holds `chip.tif`, a good chip; `grid.gsb`; `chip.vrt`.
        url: URL of a listener on loopback.
    """

    folder: Path
    url: str
    _inotify: int
    _listener: socket.socket

    def take_touched(self) -> list[str]:
        """Names of the files that were opened, and "network" for each connection, since the last call."""
        touched = []
        try:
            events = os.read(self._inotify, 1 << 16)
        except BlockingIOError:
            events = b""
        while events:
            length = int.from_bytes(events[12:16], "little")
            touched.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        while True:
            try:
                self._listener.accept()[0].close()
            except BlockingIOError:
                return touched
            touched.append("network")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """A watched folder (Linux's inotify) and a listener."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "chip.tif").write_bytes(good_chip())
    (folder / "grid.gsb").write_bytes(b"NUM_OREC" + bytes(200))
    (folder / "chip.vrt").write_bytes(_vrt(str(folder / "chip.tif")))
    with _watched(folder) as inotify, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Canary(folder, f"http://127.0.0.1:{listener.getsockname()[1]}", inotify, listener)


@contextmanager
def _watched(folder: Path) -> Iterator[int]:
    """An inotify descriptor (Linux) that reports the files opened in a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("no inotify on this system")
    in_open = 0x20
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(folder), in_open) >= 0
        yield descriptor
    finally:
        os.close(descriptor)


def _vrt(source: str) -> bytes:
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{band}"><SimpleSource><SourceFilename>{source}'
        f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band in range(1, 14)
    )
    return f'<VRTDataset rasterXSize="512" rasterYSize="512">{bands}</VRTDataset>'.encode()


def _archive(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, good_chip())
    return data.getvalue()


def _tagged(*, metadata: str = "", reference: str = "", others: tuple[tuple[int, str], ...] = ()) -> bytes:
    """A chip written by tifffile, which keeps texts unchanged."""
    citation = f"ESRI PE String = {reference}|"
    keys = [1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32767, 3073, 34737, len(citation), 0]
    metadata = metadata or '<GDALMetadata><Item name="date">2020-06-15</Item></GDALMetadata>'
    tags = [
        (34735, 3, len(keys), keys, True),
        (34737, 2, None, citation, True),
        (33550, 12, 3, (1e-4, 1e-4, 0.0), True),
        (33922, 12, 6, (0, 0, 0, -21.0, 69.0, 0), True),
        (42112, 2, None, metadata, True),
        *((tag, 2, None, text, True) for tag, text in others),
    ]
    data = io.BytesIO()
    pixels = np.moveaxis(chip_pixels(), 0, -1)
    options: dict[str, Any] = {
        "photometric": "minisblack",
        "planarconfig": "contig",
        "compression": "zlib",
        "rowsperstrip": 8,
    }
    tifffile.imwrite(data, pixels, **options, metadata=None, extratags=tags)
    return data.getvalue()


DATUM = (
    'DATUM["D",SPHEROID["Bessel",6377397.155,299.1528128]{}],PRIMEM["Greenwich",0],UNIT["degree",0.0174533]'
)


def disguised(canary: Canary) -> dict[str, bytes]:
    """Files named like chips that refer to another file or an address."""
    other, grid = canary.folder / "chip.tif", canary.folder / "grid.gsb"
    service = f"<Service name='TMS'><ServerUrl>{canary.url}</ServerUrl></Service>"
    mercator = 'PROJCS["p",GEOGCS["g",{}],PROJECTION["Mercator"],UNIT["metre",1]{}]'
    item = '<Item name="date">2020-06-15</Item>'
    return {
        "VRT": _vrt(str(other)),
        "VRT of an address": _vrt(f"/vsicurl/{canary.url}/chip.tif"),
        "VRT behind white space": b" \n" + _vrt(str(other)),
        "WMS": f"<GDAL_WMS>{service}</GDAL_WMS>".encode(),
        "JSON of an asset": b'{"type":"FeatureCollection","features":[],"href":"%s"}' % canary.url.encode(),
        "JSON of a mosaic": b'{"type":"gdal_streamed_alg","command_line":"gdal raster mosaic %s"}'
        % bytes(other),
        "address": f"{canary.url}/chip.tif".encode(),
        "GDAL's name of an address": f"/vsicurl/{canary.url}/chip.tif".encode(),
        "archive": _archive("chip.tif"),
        "archive named as a path": _archive(str(other)),
        "XML entity": f'<?xml version="1.0"?><!DOCTYPE a SYSTEM "file://{other}"><a/>'.encode(),
        "TIFF, then a VRT": good_chip() + _vrt(str(other)),
        "TIFF's magic, then a VRT": b"II*\0" + _vrt(str(other)),
        "TIFF with an entity in its metadata": _tagged(
            metadata=f'<!DOCTYPE G [<!ENTITY e SYSTEM "file://{other}">]><GDALMetadata>{item}'
            f'<Item name="x">&e;</Item></GDALMetadata>',
        ),
        "TIFF with a grid of its datum": _tagged(
            reference=mercator.format(DATUM.format(f',EXTENSION["PROJ4_GRIDS","{grid}"]'), "")
        ),
        "TIFF with a grid of its projection": _tagged(
            reference=mercator.format(
                DATUM.format(""), f',EXTENSION["PROJ4","+proj=merc +ellps=bessel +nadgrids={grid} +type=crs"]'
            )
        ),
        "TIFF whose metadata name other files": _tagged(
            metadata=f'<GDALMetadata>{item}<Item name="SourceFilename">{other}</Item>'
            f'<Item name="OVERVIEW_FILE" domain="OVERVIEWS">{other}</Item></GDALMetadata>',
            others=((700, f'<x:xmpmeta href="{canary.url}"/>'), (270, f"/vsicurl/{canary.url}")),
        ),
        "chip of a reference system from a grid": chip_bytes(
            crs=f"+proj=longlat +ellps=bessel +nadgrids={grid} +type=crs", origin=(-21, 69), pixel=1e-4
        ),
    }


def test_disguised_files_open_no_other_file_and_no_connection(canary: Canary) -> None:
    files = disguised(canary)
    canary.take_touched()  # accesses while the files are made
    touched, refused = {}, set()
    for kind, data in files.items():
        try:
            read_chip(data, chip_name())
        except ChipRejected:
            refused.add(kind)
        if found := canary.take_touched():
            touched[kind] = found

    assert touched == {}
    assert {kind for kind in files if not kind.startswith(("TIFF,", "TIFF w", "chip"))} <= refused


def test_the_canary_detects_what_gdal_opens_without_restrictions(canary: Canary) -> None:
    files = disguised(canary)
    canary.take_touched()
    with MemoryFile(files["VRT"]) as file, file.open() as dataset:  # any driver
        assert dataset.read(1).shape == (512, 512)
    assert "chip.tif" in canary.take_touched()

    options = {"GDAL_HTTP_TIMEOUT": "1", "GDAL_HTTP_CONNECTTIMEOUT": "1", "GDAL_HTTP_MAX_RETRY": "0"}
    with (
        rasterio.Env(**options),
        MemoryFile(files["VRT of an address"]) as file,
        file.open() as dataset,
        pytest.raises(RasterioIOError),
    ):
        dataset.read(1)
    assert "network" in canary.take_touched()
