"""``mdm-studio backbones``: list, show, import and remove backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdm_studio.cli.common import JsonFlag, parse_numbers, parse_settings, print_json, say
from mdm_studio.errors import UsageError

app = typer.Typer(
    help="List, show, import and remove backbones.\n\nExample: `mdm-studio backbones info mdm-nuclei`", no_args_is_help=False
)
_Name = Annotated[str, typer.Argument(help="Name or folder of a backbone.")]


@app.callback(invoke_without_command=True)
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """List the backbones that have a name.

    Example: `mdm-studio backbones list --json`
    """
    from mdm_studio.engine.backbones import backbone_folders, describe

    rows = [describe(folder) for folder in backbone_folders().values()]
    if json_:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "recipe", "blocks", "timesteps", "MB", "where", "what for")
    for row in rows:
        table.add_row(
            row["name"],
            row["recipe"]["name"],
            ",".join(map(str, row["default_blocks"])),
            ",".join(map(str, row["default_timesteps"])),
            f"{row['bytes'] / 1e6:.0f}",
            "bundled" if row["bundled"] else "yours",
            row["summary"],
        )
    Console().print(table)


@app.command()
def info(name: _Name, json_: JsonFlag = False) -> None:
    """Show what is known about a backbone: blocks, strides, training.

    Example: `mdm-studio backbones info mdm-nuclei`
    """
    from mdm_studio.engine.backbones import describe, find_backbone

    facts = describe(find_backbone(name))
    if json_:
        print_json(facts)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{facts['name']}: {facts['summary']}\n{facts['folder']}\ndigest {facts['digest']}")
    table = Table("block", "channels", "stride", "read by default")
    for block in facts["blocks"]:
        table.add_row(
            str(block["block"]),
            str(block["channels"]),
            str(block["stride"]),
            "yes" if block["block"] in facts["default_blocks"] else "",
        )
    console.print(table)
    times, scales = (", ".join(map(str, facts[key])) for key in ("default_timesteps", "default_scales"))
    beside = ", and the classical filters" if facts["default_filters"] else ""
    console.print(f"read by default at t = {times}, the image binned by {scales}{beside}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .pt file of guided-diffusion, ddpm-segmentation or MDM, or .safetensors.")],
    arch: Annotated[str, typer.Option("--arch", help="small, base, mdm-192 or adm-256.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new backbone.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Field of the architecture, for example num_classes=1000; repeatable.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe the checkpoint was trained with. Default: the network's.", show_default=False)
    ] = "",
    intensity: Annotated[str, typer.Option(help="range (the published checkpoints) or percentile.")] = "range",
    blocks: Annotated[str | None, typer.Option(help="Blocks read by default, for example 5-8,12.")] = None,
    timesteps: Annotated[str | None, typer.Option(help="Timesteps read by default, for example 50,150,250.")] = None,
) -> None:
    """Turn a published checkpoint into a backbone. No code in the file is ever run.

    Example: `mdm-studio backbones import model010000.pt --arch mdm-192 --name mdm-glas`
    """
    from mdm_studio.engine.checkpoint_import import import_checkpoint

    if intensity not in ("percentile", "range"):
        raise UsageError(f"--intensity {intensity!r} is not known; choose percentile or range")
    folder = import_checkpoint(
        file,
        name=name,
        arch=arch,
        options=parse_settings(option or [], "--option"),
        recipe=recipe,
        intensity=intensity,  # type: ignore[arg-type]
        blocks=parse_numbers(blocks, "--blocks") or (),
        timesteps=parse_numbers(timesteps, "--timesteps") or (),
    )
    say(f"imported as {name!r} into {folder}; use it with --backbone {name}")


@app.command()
def remove(name: _Name) -> None:
    """Delete one of your own backbones.

    Example: `mdm-studio backbones remove mdm-glas`
    """
    from mdm_studio.engine.backbones import remove_backbone

    say(f"removed {remove_backbone(name)}")
