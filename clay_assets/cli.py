"""The command `clay`: lists a bucket's tiles, estimates the remaining work, and examines published files.

Dagster runs the pipeline, not this command. Answers go to stdout, everything else to stderr. `clay tiles …
--output tiles.txt` replaces a manifest only after the listing succeeded; `> tiles.txt` would empty it first.
Imports neither PyTorch nor Dagster, so that a command takes little longer than its requests to the bucket.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dotenv import dotenv_values

from clay_assets.cli_options import add_tiles
from clay_assets.export import command as export_command
from clay_assets.search import command as similar_command
from clay_assets.settings import Settings, SettingsError
from clay_assets.storage import StorageError, Store
from clay_assets.tiles.manifest import FOLDERS_NAMED, ManifestError, print_tiles, read_tiles
from clay_assets.verify import command as verify_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; the process's own by default.

    Returns:
        The exit status: 0; 2 if it failed, for a reason given on stderr; 1 if `clay verify` found faults.
    """
    parsed = _parser().parse_args(arguments)
    # As in Dagster's commands, `.env` in the working directory takes precedence over the environment.
    os.environ.update({name: value for name, value in dotenv_values(".env").items() if value is not None})
    status = 0
    try:
        settings = _settings()
        match parsed.command:
            case "tiles":
                anonymous = settings.anonymous or parsed.anonymous
                options = replace(settings.read_options, use_unsigned_session=anonymous)
                print_tiles(Store(parsed.where, options), parsed.output)
            case "estimate":
                _print_estimate(settings, parsed.tiles or settings.tiles)
            case "prune":
                _print_orphans(settings, remove=parsed.yes)
            case "similar":
                status = similar_command.run(parsed, settings.output_uri, settings.read_options)
            case "export":
                status = export_command.run(parsed, settings.output_uri)
            case "verify":
                stores = settings.stores()
                if parsed.where:
                    stores = replace(stores, output=Store(parsed.where))
                tiles = read_tiles(parsed.tiles or settings.tiles)
                status = verify_command.run(parsed, stores, tiles, settings.encoder(), settings.version)
        sys.stdout.flush()
    except (StorageError, ManifestError, SettingsError) as error:
        print(f"clay: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `clay tiles … | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _settings() -> Settings:
    """Return the settings; print warnings about them in this command's format."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        settings = Settings.from_environment()
    for warning in told:
        print(f"clay: {warning.message}", file=sys.stderr)
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clay", description="Show what a bucket of chips holds and what remains to be done."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    tiles = commands.add_parser(
        "tiles",
        help="print the tiles of a bucket as a manifest",
        description="Print the tiles that have a folder, one MGRS code per line: a manifest, as in"
        " `clay tiles s3://bucket/prefix --output tiles.txt`.",
    )
    tiles.add_argument("where", help="folder or s3://bucket/prefix that holds one folder per tile")
    tiles.add_argument(
        "--output", type=Path, metavar="FILE", help="write them there; on failure FILE stays as it is"
    )
    tiles.add_argument("--anonymous", action="store_true", help="send unsigned requests: for public buckets")
    estimate = commands.add_parser(
        "estimate",
        help="count the chips that remain to be embedded and estimate how long that takes",
        description="Count tiles by state and the chips that remain to be embedded, and estimate how long"
        " that takes at the rate of earlier runs. CLAY_* and AWS_* variables, or .env, name the stores.",
    )
    add_tiles(estimate)
    prune = commands.add_parser(
        "prune",
        help="list published files of tiles without chips or outside of the manifest",
        description="List the published files whose tiles no longer have chips or are not in the manifest.",
    )
    prune.add_argument("--yes", action="store_true", help="remove them")
    similar_command.add_parser(commands)
    export_command.add_parser(commands)
    verify_command.add_parser(commands)
    return parser


def _print_estimate(settings: Settings, manifest: Path) -> None:
    """Print the states of a manifest's tiles, the remaining chips, and how long they will take."""
    # Modules that read Parquet and GeoTIFF names take most of a second to import.
    from clay_assets.embedding.checkpoint_cache import CheckpointMissing
    from clay_assets.state.states import outlook, state_table
    from clay_assets.state.survey import orphaned_files, survey

    tiles = read_tiles(manifest)
    stores = settings.stores()
    print(f"clay: checking {len(tiles)} tiles under {stores.chips.uri}", file=sys.stderr)
    target = None
    try:
        target = settings.encoder().known_target(stores.work)
    except CheckpointMissing as error:
        print(f"clay: existing results count as stale: {error}", file=sys.stderr)
    states = survey(stores, tiles, target, settings.version)
    print("\n".join([*state_table(states), "", *outlook(states)]))
    empty = [tile.tile for tile in states if tile.state == "empty"]
    if orphans := orphaned_files(stores.output, tiles, empty):
        print(
            f"{sum(map(len, orphans.values()))} published files are orphans: their tiles have no chips, or"
            f" are not in the manifest ({', '.join(sorted(orphans)[:FOLDERS_NAMED])})."
            " `clay prune` lists them, `clay prune --yes` removes them."
        )


def _print_orphans(settings: Settings, *, remove: bool) -> None:
    """Print, and remove if asked, published files of tiles without chips or outside of the manifest."""
    from clay_assets.state.survey import orphaned_files
    from clay_assets.tiles.inventory import list_chips, require_tiles

    stores = settings.stores()
    tiles = read_tiles(settings.tiles)
    require_tiles(stores.chips)  # with a wrong address every tile would look empty
    published = orphaned_files(stores.output, (), ())  # an empty manifest lists all files
    empty = [tile for tile in tiles if tile in published and not list_chips(stores.chips, tile).chips]
    files = [file for found in orphaned_files(stores.output, tiles, empty).values() for file in found]
    for file in files:
        print(file.url)
        if remove:
            stores.output.delete(file)
    done = "removed" if remove else "to remove; run `clay prune --yes` to do it" if files else "to remove"
    print(f"clay: {len(files)} files {done}", file=sys.stderr)
