"""Family retrieval: ``python -m benchmarks.retrieval [MANIFEST]`` prints a Markdown table of fingerprints.

Each model asks for its family among all others; `cross-size` takes models of its own topology out, so that equal shapes
cannot answer. P@1: the nearest is of the family; mAP: mean average precision; AUC: chance that a model of the family is
nearer than another. Families with fewer than three members are gallery only. Intervals: 95 %, bootstrap over families.

Beside the fingerprints stand what they must beat: `layered` with its spectral blocks cut, the same on Gaussian weights
of the same shapes, a rough count of shapes, and the number of parameters.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.zoo import zoo_folder
from registry import Registry
from registry.spectral import fingerprint, layer_spectrum
from registry.spectral.fingerprints import LAYERED_BLOCKS
from registry.spectral.specs import LAYERED, MME
from registry.types import Spectrum

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scores", "retrieval"]

Spectra = Sequence[Spectrum]
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Per query: its family's code, hit at 1, average precision and AUC."""

    family: NDArray[np.intp]
    figures: NDArray[np.float64]

    def mean(self) -> NDArray[np.float64]:
        """P@1, mAP, AUC over queries."""
        return np.asarray(self.figures.mean(axis=0))

    def interval(self, seed: int = 0) -> NDArray[np.float64]:
        """95 % bootstrap interval of the means, families drawn with replacement; (2, 3)."""
        rng = np.random.default_rng(seed)
        codes = np.unique(self.family)
        sums = np.array([self.figures[self.family == code].sum(axis=0) for code in codes])
        counts = np.array([(self.family == code).sum() for code in codes])
        drawn = rng.integers(len(codes), size=(_RESAMPLES, len(codes)))
        return np.asarray(np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1)[:, None], [0.025, 0.975], axis=0))


def retrieval(
    distances: NDArray[np.float64], family: NDArray[np.str_], topology: NDArray[np.str_] | None = None
) -> Scores:
    """Score (n, n) distances; with ``topology``, models that share a query's leave its gallery."""
    members = Counter(family.tolist())
    codes = np.unique(family, return_inverse=True)[1]
    who, figures = [], []
    for i in range(len(family)):
        gallery = np.arange(len(family)) != i
        if topology is not None:
            gallery &= topology != topology[i]
        relevant = family[gallery] == family[i]
        if members[str(family[i])] < 3 or not relevant.any() or relevant.all():
            continue
        ranked = relevant[np.argsort(distances[i, gallery], kind="stable")]
        precision = (np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()
        area = 1.0 - np.cumsum(~ranked)[ranked].mean() / (~ranked).sum()
        who.append(codes[i])
        figures.append((float(ranked[0]), precision, area))
    return Scores(np.array(who), np.array(figures))


def _shape_count(spectra: Spectra) -> NDArray[np.float64]:
    tenths = np.linspace(0.0, 1.0, 11)
    p, q = np.log2([[s.layer.p, s.layer.q] for s in spectra]).T
    return np.concatenate([np.quantile(p, tenths), np.quantile(q, tenths), [np.log2(len(spectra))]])


def _gaussian(spectra: Spectra) -> Spectra:
    rng = np.random.default_rng(0)
    made = []
    for spectrum in spectra:
        mean, values = layer_spectrum(rng.standard_normal((spectrum.layer.p, spectrum.layer.q)))
        made.append(replace(spectrum, mean=mean, values=values))
    return made


def _layered(spectra: Spectra) -> NDArray[np.float64]:
    return fingerprint(spectra, LAYERED).vector.astype(np.float64)


def _without(*cut: str) -> Callable[[Spectra], NDArray[np.float64]]:
    ends = np.cumsum(list(LAYERED_BLOCKS.values()))
    kept = np.concatenate(
        [
            np.arange(end - size, end)
            for (name, size), end in zip(LAYERED_BLOCKS.items(), ends, strict=True)
            if name not in cut
        ]
    )
    return lambda spectra: _layered(spectra)[kept]


VECTORS: dict[str, Callable[[Spectra], NDArray[np.float64]]] = {
    "`layered`": _layered,
    "`layered`, spectra taken out": _without("spectra", "depths"),
    "`layered`, shapes taken out": _without("shapes", "pairs", "layers"),
    "`layered` of Gaussian weights": lambda spectra: _layered(_gaussian(spectra)),
    "`mme`": lambda spectra: fingerprint(spectra, MME).vector.astype(np.float64),
    "`mme` of Gaussian weights": lambda spectra: fingerprint(_gaussian(spectra), MME).vector.astype(np.float64),
    "rough count of shapes": _shape_count,
    "number of parameters": lambda spectra: np.log2([sum(s.layer.p * s.layer.q for s in spectra)]),
}


def main() -> None:
    """Ingest the models of the manifest (the zoo's by default) and print the table."""
    manifest = Path(sys.argv[1]) if len(sys.argv) > 1 else zoo_folder() / "manifest.jsonl"
    with tempfile.TemporaryDirectory() as folder, Registry(f"sqlite:///{folder}/models.db") as reg:
        reg.ingest_all(reg.plan(manifest=manifest))
        models = reg.models()
        spectra = [reg.spectrum(model.name) for model in models]
    family = np.array([model.family for model in models])
    topology = np.array([model.topology for model in models])
    print(f"{len(models)} models, {len(set(family))} families, L1 distances\n")
    print("| fingerprint | all P@1 | all mAP | cross-size P@1 | cross-size mAP | interval of that mAP | AUC |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, vector in VECTORS.items():
        vectors = np.array([vector(each) for each in spectra])
        distances = cdist(vectors, vectors, "cityblock")
        everything, across = retrieval(distances, family), retrieval(distances, family, topology)
        low, high = across.interval()[:, 1]
        hit, precision, area = across.mean()
        print(
            f"| {name} | {everything.mean()[0]:.3f} | {everything.mean()[1]:.3f} "
            f"| {hit:.3f} | {precision:.3f} | {low:.2f}-{high:.2f} | {area:.3f} |"
        )


if __name__ == "__main__":
    main()
