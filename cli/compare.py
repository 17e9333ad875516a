"""``archreg compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli import json_output, tables, verdict_text
from registry.cli.options import AsJson, Database, open_registry, question_of_two, with_options

if TYPE_CHECKING:
    from registry.types import Comparison, Conjugacy, ModelSummary

__all__ = ["compare"]


@with_options(question=question_of_two)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A stored name, a file or a reference.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Ask for spectra as near as those of other seeds of one training, too.")
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    *,
    question: dict[str, Any],
) -> None:
    """Say whether two models are equivalent within the tolerance, with the evidence. The exit code is 0 either way.

    The tolerance tells families apart. Among networks of one shape, --strict tells apart what was trained otherwise.
    """
    with open_registry(db) as registry:
        compared = registry.compare(a, b, strict=strict, **question)
    if as_json:
        json_output.write(json_output.comparison(compared))
        return
    against = compared.verdict.equivalent is False
    tables.say(
        f"{compared.a.name} and {compared.b.name}: "
        + (
            f"not equivalent: {verdict_text.unlike(compared.verdict)}"
            if against
            else verdict_text.why(compared.verdict)
        ),
        f"{verdict_text.sentence(compared.verdict, compared.calibration)} "
        f"({verdict_text.calibrated(compared.calibration)})",
        verdict_text.basis(compared.spec, compared.distance, compared.verdict.tolerance)
        + "; distances: "
        + ", ".join(f"{name} {tables.number(distance)}" for name, distance in compared.distances),
        *verdict_text.approximate(compared.a, compared.b),
        *verdict_text.differences(compared.contrast, compared.a.name, compared.b.name),
    )
    _show_sides(compared)


def _show_sides(compared: Comparison) -> None:
    left = _side(compared.a, compared.conjugacy_a)
    right = _side(compared.b, compared.conjugacy_b)
    rows = [(fact, left[fact], right[fact]) for fact in left if left[fact] or right[fact]]
    tables.table(("", compared.a.name, compared.b.name), rows)


def _side(model: ModelSummary, conjugacy: Conjugacy | None) -> dict[str, str]:
    tail = dict(conjugacy.tail) if conjugacy else {}
    return {
        "family": model.family,
        "architecture": model.architecture,
        "data set": model.dataset,
        "parameters": tables.whole(model.parameters),
        "size": tables.size(model.bytes),
        "layers": tables.whole(model.layers),
        "metrics": tables.metrics(model.metrics),
        "training class": conjugacy.training_class if conjugacy else model.training_class,
        "tail class": conjugacy.tail_class if conjugacy else model.tail_class,
        **{f"conjugate within {delta:g} from x =": tables.number(x) for delta, x in tail.items()},
        "widths of the Wishart band": tables.number(conjugacy.z) if conjugacy else "",
        "tail decays as": conjugacy.decay.law if conjugacy and conjugacy.decay else "",
        "topology": model.topology,
    }
