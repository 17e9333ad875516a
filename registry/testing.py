"""The contracts of sources and fingerprints as checks, for this package's tests and those of other packages.

Each is a plain function that raises ``AssertionError`` with a sentence that says what does not hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import RegistryError, SourceError
from registry.sources import Source, expand, layer_matrix, open_ref, plan_weights
from registry.spectral import FingerprintKind, fingerprint, fingerprint_of_layers, spectrum
from registry.types import FingerprintSpec, LayerMatrix, ModelRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from registry.types import Checkpoint, Spectrum

__all__ = ["check_fingerprint", "check_source"]

SHAPES = ((16, 3, 3, 3), (24, 16, 3, 3), (24, 24), (10, 24))
MAX_LENGTH = 480  # numbers that a vector may have in a database


def _holds(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def check_source(source: Source, reference: str | Path) -> None:
    """Check a source by one reference to a single model of it, whose weights can be had here and now.

    The source is looked up by its name, so it must be in the table of this package or an installed entry point.

    Parameters
    ----------
    source
        An entry of the table of sources.
    reference
        What a user writes for one model: ``tiny:7``, a path.

    Raises
    ------
    AssertionError
        A sentence that names the source and what does not hold.
    """
    _holds(isinstance(source, Source), f"{source!r} is no registry.sources.Source")
    name = source.name
    _holds(
        bool(source.prefix or source.schemes) == (source.expand is not None),
        f"{name} must have both a prefix and an expand function, or neither",
    )
    refs = expand(reference)
    _holds(len(refs) == 1, f"{name}: {reference} must mean one model, not {len(refs)}")
    [ref] = refs
    _holds(isinstance(ref, ModelRef), f"{name}: expand must return ModelRef values")
    _holds(ref.source == name, f"{name}: the reference's source is {ref.source!r}; open_ref looks it up by that name")
    _holds(ref.name.strip() and ref.name.isprintable(), f"{name}: {reference} has no name that can be shown")
    _holds(expand(reference) == refs, f"{name}: {reference} must mean the same model every time")
    with open_ref(ref) as checkpoint:
        _check_tensors(name, checkpoint)
        plan = plan_weights(checkpoint)
        for layer in plan.layers:
            finite = np.isfinite(layer_matrix(checkpoint, layer)).all()
            _holds(finite, f"{name}: the weights of {layer.name} are not finite")
        with open_ref(ref) as other:
            _holds(plan == plan_weights(other), f"{name}: opened twice, {reference} must have the same weights")
        stored = sum(len(checkpoint.raw(info.name)) for info in checkpoint.tensors)
        _holds(plan.bytes == stored, f"{name}: raw must return all bytes of a tensor")
        first = checkpoint.tensors[0].name
    checkpoint.close()
    try:
        checkpoint.raw(first)
    except SourceError as error:
        _holds("closed" in error.message, f"{name}: the error of a closed checkpoint must say that it is closed")
    else:
        raise AssertionError(f"{name}: a closed checkpoint must raise SourceError where it is read")
    _check_refusal(source, ref)


def _check_tensors(name: str, checkpoint: Checkpoint) -> None:
    names = [info.name for info in checkpoint.tensors]
    _holds(names, f"{name}: the checkpoint lists no tensors")
    _holds(len(set(names)) == len(names), f"{name}: two tensors have one name")
    _holds(checkpoint.ref.source == name, f"{name}: the checkpoint's ref must be of the source that opened it")
    for info in checkpoint.tensors:
        raw = checkpoint.raw(info.name)
        _holds((raw.format, raw.ndim) == ("B", 1), f"{name}: raw({info.name!r}) must be a flat memoryview of bytes")
        if info.dtype not in ("float16", "float32", "float64"):
            continue
        array = checkpoint.read(info.name)
        kept = np.dtype("float64" if info.dtype == "float64" else "float32")
        _holds(array.dtype == kept, f"{name}: read({info.name!r}) must be {kept}, not {array.dtype}")
        _holds(array.shape == info.shape, f"{name}: read({info.name!r}) has shape {array.shape}, listed {info.shape}")
        told = np.frombuffer(raw, np.dtype(info.dtype).newbyteorder("<")).reshape(info.shape).astype(kept)
        _holds(np.array_equal(array, told, equal_nan=True), f"{name}: read and raw of {info.name!r} differ")


def _check_refusal(source: Source, ref: ModelRef) -> None:
    """What is not there must be refused by an error of the package, with a remedy."""
    name, gone = source.name, replace(ref, target=f"{ref.target}.gone", name="gone")
    try:
        source.open(gone).close()
    except SourceError as error:
        _holds(error.remedy, f"{name}: the error for a target that is not there has no remedy: {error.message}")
    except Exception as error:  # whatever it is, this sentence names the source
        told = f"must raise SourceError, not {type(error).__name__}"
        raise AssertionError(f"{name}: a target that is not there {told}") from error
    else:
        raise AssertionError(f"{name}: the target {gone.target!r}, which is not there, was opened")


def check_fingerprint(kind: FingerprintKind) -> None:
    """Check a fingerprint on small networks of random weights.

    The kind is looked up by the name of its spec, so it must be in the table of this package or an installed entry
    point.

    Parameters
    ----------
    kind
        An entry of the table of fingerprints.

    Raises
    ------
    AssertionError
        A sentence that names the fingerprint and what does not hold.
    """
    _holds(isinstance(kind, FingerprintKind), f"{kind!r} is no registry.spectral.FingerprintKind")
    spec = kind.spec
    name = spec.label
    _holds(1 <= spec.length <= MAX_LENGTH, f"{name}: the length must lie between 1 and {MAX_LENGTH}")
    again = FingerprintSpec.of(spec.definition())
    _holds(again.hash == spec.hash, f"{name}: its definition must give the spec again, with the same hash")
    for shapes in (SHAPES, SHAPES[:1], SHAPES[-1:], SHAPES * 10):
        spectra = _spectra(shapes, seed=1)
        same = _vector(spectra, spec).tobytes() == _vector(spectra, spec).tobytes()
        _holds(same, f"{name}: the same spectra must give the same vector")
    one, other = _spectra(SHAPES, seed=1), _spectra(SHAPES, seed=2, heavy=True)
    differ = (_vector(one, spec) != _vector(other, spec)).any()
    if kind.of_layers is None:
        _holds(
            differ, f"{name}: spectra of Gaussian weights and of weights with heavy tails must not give the same vector"
        )
        return
    _holds(not differ, f"{name}: a kind that is computed of layers alone must not depend on their spectra")
    alone = fingerprint_of_layers([spectrum.layer for spectrum in one], spec).vector
    _holds(alone.tobytes() == _vector(one, spec).tobytes(), f"{name}: layers alone must give the same vector")


def _vector(spectra: Sequence[Spectrum], spec: FingerprintSpec) -> NDArray[np.float32]:
    try:
        return fingerprint(spectra, spec).vector
    except RegistryError as error:
        raise AssertionError(f"{spec.label} of {len(spectra)} layers: {error.message}") from error


def _spectra(shapes: Sequence[tuple[int, ...]], *, seed: int, heavy: bool = False) -> tuple[Spectrum, ...]:
    """Spectra of layers of independent normal weights; ``heavy``: of Student's t with two degrees of freedom."""
    rng = np.random.default_rng(seed)
    found = []
    for position, shape in enumerate(shapes):
        weights = rng.standard_t(2, size=shape) if heavy else rng.standard_normal(shape)
        kind = "conv" if len(shape) > 2 else "linear"
        layer = LayerMatrix(position, f"layer{position}", f"layer{position}", shape, kind)
        found.append(spectrum(layer, weights.astype(np.float32)))
    return tuple(found)
