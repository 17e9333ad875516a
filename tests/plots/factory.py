"""Pictures made by hand."""

from __future__ import annotations

import numpy as np

from registry.ensembles import REFERENCES
from registry.plots import Curve, DifferencePicture, SpectrumPicture
from registry.types import Conjugacy

CONJUGACY = Conjugacy(((0.01, 5.5), (0.05, 3.5)), ((0.01, 3.0),), 12.5, "long", "trained")
HOSTILE = (
    "plain",
    "_hidden",
    r"$\frac{1",
    "a$b$c",
    r"\$x",
    "line\nfeed\x1b[31m",
    "\u202egnp.exe",
    "网络\U0001f600",
    "<script>&amp;",
    "x" * 400,
    "",
    " ",
    "%s {x}",
    "\ud800",
)


def differences(*names, reference="cue", gaussian=True, sample=None):
    x = np.union1d(np.geomspace(1e-2, 60, 200), [0.0, 2.0])
    curves = []
    for number, name in enumerate(names):
        values = np.clip(x / 2, 0, 1) - 1 + np.exp(-x / (1 + number / 4))
        own = values / 2 if gaussian else None
        curves.append(Curve(name, number + 1, values, values - 0.02, values + 0.03, own))
    known = REFERENCES[reference]
    return DifferencePicture(x, tuple(curves), "full", known.title, known.law, known.support, sample, 0.95, 1000, 0)


def spectrum(name="net", layers=7, **changes):
    rng = np.random.default_rng(layers)
    edges = 2 * 10.0 ** np.linspace(-3, 1, 81)
    density = rng.random((layers, 80))
    ratios = rng.uniform(0.3, 0.7, layers)
    ratios[0] = np.nan
    known = {
        "name": name,
        "edges": edges,
        "layers": density,
        "network": density.mean(axis=0),
        "circular": np.diff(np.clip(edges / 2, 0, 1)) / 0.05,
        "wishart": rng.random(80),
        "support": np.array([np.full(layers, 0.0), np.full(layers, 3.0)]),
        "ratios": ratios,
        "errors": np.full(layers, 0.05),
        "theory": (("Poisson", 0.386), ("β = 1", 0.5307)),
        "below": 0.002,
        "conjugacy": CONJUGACY,
    }
    return SpectrumPicture(**(known | changes))
