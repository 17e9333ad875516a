"""Plot commands: ``plot csd``, ``plot spectrum``, ``plot tree``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from registry.cli import json_output, tables
from registry.cli.option_values import metavar_of, one_of, parse_amount
from registry.cli.options import AsJson, Database, filters, open_registry, with_options
from registry.extensions import REFERENCES

__all__ = ["app", "csd", "spectrum", "tree"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="Output file; the suffix sets the format: .png, .svg, .pdf."),
]
Title = Annotated[str, typer.Option(metavar="TEXT", help="Title of the figure.")]


@app.callback()
def _pictures() -> None:
    """Draw spectral differences, a spectrum, or trees of related models."""


@app.command(
    epilog="\b\nExamples:\n  archreg plot csd vgg11 vgg13 vgg16 vgg19 -o vgg.pdf\n"
    "  archreg plot csd resnet20 --scale proper --reference wishart -o resnet20.png"
)
def csd(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of stored models, up to 8.")],
    output: Output,
    scale: Annotated[
        Literal["full", "proper"],
        typer.Option(help="Structural zeros: counted (full, as in the paper) or left out (proper)."),
    ] = "full",
    reference: Annotated[
        str,
        typer.Option(
            parser=one_of(REFERENCES),
            metavar=metavar_of(REFERENCES),
            help="Reference ensemble; wishart needs --scale proper.",
        ),
    ] = "cue",
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of one sample of the ensemble.",
            show_default="the expectation of the ensemble",
        ),
    ] = None,
    axes: Annotated[Literal["both", "linear", "log"], typer.Option(help="Panels to draw.")] = "both",
    x_max: Annotated[
        float | None,
        typer.Option(
            parser=parse_amount, metavar="X", help="Largest location, above 2.", show_default="the largest eigenvalue"
        ),
    ] = None,
    title: Title = "",
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Draw cumulative spectral differences.

    Each network has a bootstrap band over its layers. The reference ensembles are drawn, too.
    """
    shown = list(dict.fromkeys(names))
    with open_registry(db) as registry:
        registry.plot_csd(
            shown, output, scale=scale, reference=reference, seed=seed, axes=axes, x_max=x_max, title=title
        )
    if as_json:
        json_output.write({"file": str(output), "models": shown})
    else:
        tables.say(f"Wrote the spectral differences of {tables.counted(len(shown), 'network')} to {output}.")


@app.command(epilog="\b\nExamples:\n  archreg plot spectrum resnet20 -o resnet20.png")
def spectrum(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a stored model.")],
    output: Output,
    title: Title = "",
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Draw the spectral density of a network.

    Panels: density by depth, mean density with the reference ensembles, and spacing ratios.
    """
    with open_registry(db) as registry:
        registry.plot_spectrum(name, output, title=title)
    if as_json:
        json_output.write({"file": str(output), "models": [name]})
    else:
        tables.say(f"Wrote the spectrum of {name} to {output}.")


@app.command(epilog="\b\nExamples:\n  archreg plot tree -o tree.svg\n  archreg plot tree --family resnet -o tree.png")
@with_options(filters=filters)
def tree(
    output: Output,
    title: Title = "",
    db: Database = None,
    as_json: AsJson = False,
    *,
    filters: dict[str, Any],
) -> None:
    """Draw trees of related models.

    Lines join each model to the one whose weights correlate most with its own. At most 400 models.
    """
    with open_registry(db) as registry:
        registry.plot_tree(output, title=title, **filters)
    if as_json:
        json_output.write({"file": str(output)})
    else:
        tables.say(f"Wrote the trees of related models to {output}.")
