"""The command `clay`: which tiles a bucket holds, and what is left to do of them.

Only what is asked before anything runs; running is Dagster's (`dagster asset materialize`, its UI). Answers
go to stdout, everything else to stderr. `clay tiles … --output tiles.txt` replaces a manifest, and only once
the answer is there: `> tiles.txt` would empty it first. Imports neither PyTorch nor Dagster: an answer should
not take longer than asking the bucket.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from clay_assets.cli_options import add_tiles
from clay_assets.export import command as export_command
from clay_assets.search import command as similar_command
from clay_assets.settings import Settings, SettingsError
from clay_assets.storage import S3Options, StorageError, Store
from clay_assets.tiles.bucket_tiles import FOLDERS_NAMED, OutputError, print_tiles
from clay_assets.tiles.manifest import ManifestError, read_tiles
from clay_assets.verify import command as verify_command

if TYPE_CHECKING:
    from clay_assets.embedding.encoders import EncoderSettings
    from clay_assets.results.target import Target
    from clay_assets.state.states import TileState, TileStores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; the process's own if left out.

    Returns:
        The exit status: 0, or 2 where there is no answer and stderr says why; 1 of `clay verify` where
        something is wrong.
    """
    parsed = _parser().parse_args(arguments)
    # As Dagster does for its commands: what stands in `.env` here wins over the environment.
    os.environ.update({name: value for name, value in dotenv_values(".env").items() if value is not None})
    try:
        if parsed.command == "tiles":
            options = _reading(_settings())
            store = Store(
                parsed.where, replace(options, use_unsigned_session=True) if parsed.anonymous else options
            )
            print_tiles(store, parsed.output)
        elif parsed.command == "prune":
            print_orphans(_settings(), remove=parsed.yes)
        elif parsed.command == "similar":
            return similar_command.run(parsed, _settings().value("CLAY_OUTPUT_URI"))
        elif parsed.command == "verify":
            return _verify(parsed, _settings())
        elif parsed.command == "export":
            return export_command.run(parsed, _settings().value("CLAY_OUTPUT_URI"))
        else:
            print_estimate(_settings(), parsed.tiles)
        sys.stdout.flush()
    except (StorageError, ManifestError, SettingsError, OutputError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `clay tiles … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _settings() -> Settings:
    """The settings; a warning about them is told like everything else."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        settings = Settings.from_environment()
    for warning in told:
        print(f"clay: {warning.message}", file=sys.stderr)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clay", description="What a bucket of chips holds and what is left to do."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    tiles = commands.add_parser(
        "tiles",
        help="print the tiles of a bucket as a manifest",
        description="Print the tiles that have a folder, one MGRS code a line: a manifest, as in"
        " `clay tiles s3://bucket/prefix --output tiles.txt`.",
    )
    tiles.add_argument("where", help="folder or s3://bucket/prefix that holds one folder per tile")
    tiles.add_argument(
        "--output", type=Path, metavar="FILE", help="write them there; on failure FILE stays as it is"
    )
    tiles.add_argument("--anonymous", action="store_true", help="send unsigned requests: for public buckets")
    estimate = commands.add_parser(
        "estimate",
        help="say what is left to embed and how long it will take",
        description="Say how many tiles are in which state, what is left to embed, and how long that takes at"
        " the rate of earlier runs. CLAY_* and AWS_* variables, or .env, say where everything lies.",
    )
    add_tiles(estimate)
    prune = commands.add_parser(
        "prune",
        help="name the published files of tiles that have no chips any more, or are not in the manifest",
        description="Name the published files whose tiles have no chips any more or are not in the manifest.",
    )
    prune.add_argument("--yes", action="store_true", help="remove them")
    similar_command.add_parser(commands)
    export_command.add_parser(commands)
    verify_command.add_parser(commands)
    return parser


def print_estimate(settings: Settings, manifest: Path | None) -> None:
    """Print what is left to do of a manifest's tiles, and how long it will take.

    Args:
        settings: Of the deployment.
        manifest: File of tiles; the settings' where None.

    Raises:
        ManifestError: If the manifest cannot be read.
        SettingsError: If a setting means nothing.
        StorageError: If a store refuses.
    """
    # What reads Parquet and GeoTIFF names takes most of a second to import.
    from clay_assets.state.estimate import outlook, state_table
    from clay_assets.state.orphans import orphaned_files
    from clay_assets.state.survey import survey

    settings.check()
    tiles = read_tiles(manifest or settings.manifest)
    stores = _stores(settings)
    print(f"clay: looking at {len(tiles)} tiles under {stores.chips.uri}", file=sys.stderr)
    states = survey(stores, tiles, _known_target(settings, stores.work), settings.version)
    print("\n".join([*state_table(states), "", *outlook(states)]))
    orphans = orphaned_files(stores.output, tiles, _empty(states))
    if orphans:
        count = sum(map(len, orphans.values()))
        print(
            f"{count} published files are orphans: their tiles have no chips, or are not in the manifest"
            f" ({', '.join(sorted(orphans)[:FOLDERS_NAMED])}). `clay prune` names them and removes them if"
            f" asked."
        )


def print_orphans(settings: Settings, *, remove: bool) -> None:
    """Name the published files whose tiles have no chips or have left the manifest; remove them if asked.

    Args:
        settings: Of the deployment.
        remove: Whether to remove the files.

    Raises:
        ManifestError: If the manifest cannot be read.
        StorageError: If a store refuses.
    """
    from clay_assets.state.orphans import orphaned_files
    from clay_assets.tiles.inventory import list_chips, require_tiles

    stores = _stores(settings)
    tiles = read_tiles(settings.manifest)
    require_tiles(stores.chips)  # under a wrong address every tile would look empty
    published = orphaned_files(stores.output, (), ())  # all files: of no manifest
    empty = [tile for tile in tiles if tile in published and not list_chips(stores.chips, tile).chips]
    orphans = orphaned_files(stores.output, tiles, empty)
    for files in orphans.values():
        for file in files:
            print(file.url)
            if remove:
                stores.output.delete(file)
    count = sum(map(len, orphans.values()))
    done = "removed" if remove else "to remove; run `clay prune --yes` to do it" if count else "to remove"
    print(f"clay: {count} files {done}", file=sys.stderr)


def _verify(parsed: argparse.Namespace, settings: Settings) -> int:
    stores = _stores(settings)
    if parsed.where:
        stores = replace(stores, output=Store(parsed.where))
    settings.check()
    tiles = read_tiles(parsed.tiles or settings.manifest)
    return verify_command.run(parsed, stores, tiles, _encoder(settings), settings.version)


def _stores(settings: Settings) -> "TileStores":
    from clay_assets.state.states import TileStores

    return TileStores(
        Store(settings.value("CLAY_CHIPS_URI"), _reading(settings)),
        Store(settings.value("CLAY_WORK_URI")),
        Store(settings.value("CLAY_OUTPUT_URI")),
    )


def _reading(settings: Settings) -> S3Options:
    """How chips and checkpoint are read."""
    return S3Options(use_unsigned_session=settings.anonymous, request_payer=settings.request_payer)


def _encoder(settings: Settings) -> "EncoderSettings":
    from clay_assets.embedding.encoders import EncoderSettings

    return EncoderSettings(
        Store(settings.value("CLAY_CHECKPOINT"), _reading(settings)),
        level=settings.value("CLAY_LEVEL"),
        precision=settings.value("CLAY_PRECISION"),
        device=settings.value("CLAY_DEVICE"),
        batch_size=settings.value("CLAY_BATCH_SIZE"),
        max_nodata=settings.max_nodata,
        allow_untrained=settings.allow_untrained,
    )


def _known_target(settings: Settings, work: Store) -> "Target | None":
    """The target of the embedding; None if the checkpoint is unknown or missing."""
    from clay_assets.embedding.checkpoint_cache import CheckpointMissing

    try:
        return _encoder(settings).known_target(work)
    except CheckpointMissing as error:
        print(f"clay: results at hand count as stale: {error}", file=sys.stderr)
        return None


def _empty(states: "Sequence[TileState]") -> list[str]:
    return [look.tile for look in states if look.state == "empty"]
