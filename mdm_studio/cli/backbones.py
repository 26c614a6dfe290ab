"""``mdm-studio backbones``: list, show, import and remove backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdm_studio.cli.common import JsonFlag, cell, parse_numbers, parse_settings, print_json, say
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
    from mdm_studio.services.backbone_list import describe_all

    rows = describe_all()
    if json_:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "recipe", "blocks", "timesteps", "MB", "where", "what for")
    for row in rows:
        if "problem" in row:
            where = "bundled" if row["bundled"] else "yours"
            table.add_row(cell(row["name"]), "", "", "", "", where, "cannot be used, see below")
            continue
        table.add_row(
            cell(row["name"]),
            row["recipe"].get("name", ""),
            ",".join(map(str, row["default_blocks"])),
            ",".join(map(str, row["default_timesteps"])),
            f"{row['bytes'] / 1e6:.0f}",
            "bundled" if row["bundled"] else "yours",
            cell(row["summary"]),
        )
    console = Console()
    console.print(table)
    for row in rows:
        if "problem" in row:
            console.print(f"{row['name']}: {row['problem']}", markup=False, highlight=False, soft_wrap=True)


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
    console.print(f"{facts['name']}: {facts['summary']}\n{facts['folder']}\ndigest {facts['digest']}", markup=False)
    table = Table("block", "channels", "stride", "read by default")
    for block in facts["blocks"]:
        table.add_row(
            f"{block['block']} {block['name']}".strip(),
            str(block["channels"]),
            str(block["stride"]),
            "yes" if block["block"] in facts["default_blocks"] else "",
        )
    console.print(table)
    times, scales = (", ".join(map(str, facts[key])) for key in ("default_timesteps", "default_scales"))
    beside = ", and the classical filters" if facts["default_filters"] else ""
    console.print(f"read by default at t = {times}, the image binned by {scales}{beside}")
    if facts["training"].get("source"):
        licence = facts["training"].get("licence") or "unknown: ask its authors"
        source = f"from {facts['training']['source']}; licence of the weights: {licence}"
        console.print(source, markup=False, highlight=False, soft_wrap=True)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .pt or .safetensors file of a published checkpoint; with --arch transformers a model of Hugging Face or a "
            "folder with one.",
        ),
    ],
    arch: Annotated[
        str, typer.Option("--arch", help="transformers, or the network of a checkpoint: small, base, mdm-192, adm-256 ...")
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the new backbone.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Field of the architecture, for example num_classes=1000; repeatable.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe the checkpoint was trained with. Default: the network's.", show_default=False)
    ] = "",
    revision: Annotated[
        str, typer.Option(help="Branch, tag or commit of a model of Hugging Face. Default: its newest.", show_default=False)
    ] = "",
    intensity: Annotated[
        str,
        typer.Option(
            help="range (published checkpoints) or percentile (models of Hugging Face). Default: by --arch.", show_default=False
        ),
    ] = "",
    blocks: Annotated[str | None, typer.Option(help="Blocks read by default, for example 5-8,12.")] = None,
    timesteps: Annotated[str | None, typer.Option(help="Timesteps read by default, for example 50,150,250.")] = None,
) -> None:
    """Turn a published checkpoint, or a model of Hugging Face, into a backbone. No code in a file is ever run.

    Example: `mdm-studio backbones import facebook/dinov2-small --arch transformers --name dinov2-s`
    """
    if intensity not in ("", "percentile", "range"):
        raise UsageError(f"--intensity {intensity!r} is not known; choose percentile or range")
    read = parse_numbers(blocks, "--blocks") or ()
    if arch == "transformers":
        if option or recipe or timesteps:
            raise UsageError("--option, --recipe and --timesteps are for checkpoints; a model of Hugging Face says all itself")
        folder = _import_hub(source, name, revision, read, intensity)
    else:
        if revision:
            raise UsageError("--revision is for models of Hugging Face, with --arch transformers")
        from mdm_studio.engine.checkpoint_import import import_checkpoint

        folder = import_checkpoint(
            Path(source),
            name=name,
            arch=arch,
            options=parse_settings(option or [], "--option"),
            recipe=recipe,
            intensity=intensity or "range",  # type: ignore[arg-type]
            blocks=read,
            timesteps=parse_numbers(timesteps, "--timesteps") or (),
        )
    say(f"imported as {name!r} into {folder}; use it with --backbone {name}")


def _import_hub(source: str, name: str, revision: str, blocks: tuple[int, ...], intensity: str) -> Path:
    from mdm_studio.engine.hub_import import import_hub_model

    chosen = intensity or "percentile"
    return import_hub_model(source, name=name, revision=revision, blocks=blocks, intensity=chosen)  # type: ignore[arg-type]


@app.command()
def remove(name: _Name) -> None:
    """Delete one of your own backbones.

    Example: `mdm-studio backbones remove mdm-glas`
    """
    from mdm_studio.engine.backbones import remove_backbone

    say(f"removed {remove_backbone(name)}")
