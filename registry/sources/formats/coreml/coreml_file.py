"""Source for Core ML: ``.mlmodel`` files and ``.mlpackage`` folders, by the model file within.

A model is a neural network, an ML program whose constants may lie in ``weights/weight.bin`` beside it, or a pipeline of
such. Source: ``mlmodel/format/Model.proto`` (apple/coremltools).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, UnsafeError, WeightsError
from registry.sources.base import Source
from registry.sources.files.byte_blocks import Blocks
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.companions import CompanionedCheckpoint, Companions
from registry.sources.files.wire import BYTES, Message
from registry.sources.formats.coreml.entered_weights import Entered
from registry.sources.formats.coreml.mil_program import read_program
from registry.sources.formats.coreml.neural_network import read_network
from registry.sources.graph_order import graph_order
from registry.sources.model_files import facts_beside, with_facts

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from registry.sources.files.lazy_tensors import LazyTensor
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE", "open_coreml"]

_MAX_MODELS = 1000  # of a pipeline
_MAX_DEPTH = 8  # of pipelines within pipelines
_NETWORKS = frozenset({303, 403, 500})
_PROGRAM = 502
_PIPELINES = frozenset({200, 201, 202})
_ELSEWHERE = {556: "a model in another file", 3000: "a model in a form of its own"}


def open_coreml(ref: ModelRef) -> Checkpoint:
    """Open a model by its layers or operations; ``key`` is the name of a function of an ML program.

    Raises
    ------
    SourceError
        As `open_bytes`.
    WeightsError
        The file is damaged, holds no network, or has weights that cannot be read right.
    UnsafeError
        It holds more than any network, or names files outside its folder.
    NotFoundError
        It has no function of that name.
    """
    file = open_bytes(ref.target)
    companions = Companions(ref.target)
    try:
        tensors: dict[str, LazyTensor] = {}
        order: list[str] = []
        notes: list[str] = []
        programs = 0
        models = list(_models(Message(Blocks(file)), 0, ""))
        for kind, message, name in models:
            entered = Entered(file.name, f"{name}/" if len(models) > 1 else "")
            outputs: list[Hashable] = []
            if kind == _PROGRAM:
                programs += 1
                outputs, others = read_program(message, companions, entered, ref.key)
                if others and ref.key is None:
                    notes.append(f"other functions were left out; --key chooses one: {', '.join(others)[:200]}")
            else:
                read_network(message, entered)
            notes += entered.check()
            order += graph_order(entered.steps, outputs)
            tensors |= entered.tensors
        if ref.key is not None and not programs:
            raise NotFoundError(
                f"{ref.target} has no entry {ref.key!r}", "leave --key out: only programs have functions"
            )
        if not tensors:
            raise WeightsError(f"{ref.target} holds no weights of a network", "give a neural network or an ML program")
        if any(name.endswith(("bias_ih_l0", "bias_ih_l0_reverse")) for name in tensors):
            notes.append("the two biases of a recurrent layer are stored as their sum, and counted once")
        facts = facts_beside(Path(ref.target), names=tensors)
        facts = replace(facts, laid_out=True, order=tuple(order), notes=(*facts.notes, *notes))
        opened = CompanionedCheckpoint(with_facts(ref, facts), tensors, facts, files=(file,), check=companions.check)
        opened.companions = companions
        return opened
    except BaseException:
        file.close()
        companions.close()
        raise


def _models(message: Message, depth: int, name: str) -> Iterator[tuple[int, Message, str]]:
    """The networks and programs of a model, those of a pipeline in its order, with their names."""
    if depth > _MAX_DEPTH:
        raise UnsafeError(f"{message.file.name} nests pipelines deeper than {_MAX_DEPTH} levels", "split the model")
    for each in message:
        if each.wire != BYTES:
            continue
        if each.number in _NETWORKS or each.number == _PROGRAM:
            yield each.number, message.message(each), name
        elif each.number in _PIPELINES:
            inner = message.message(each)
            pipeline = inner if each.number == 202 else next(inner.messages(1), None)
            if pipeline is None:
                continue
            names = [pipeline.text(part) for part in pipeline if part.number == 2 and part.wire == BYTES]
            for place, model in enumerate(pipeline.messages(1)):
                if place >= _MAX_MODELS:
                    raise UnsafeError(
                        f"{message.file.name} is a pipeline of more than {_MAX_MODELS} models", "split it"
                    )
                own = (
                    "".join(c if c.isalnum() or c in "_-" else "_" for c in names[place][:80])
                    if place < len(names)
                    else ""
                )
                yield from _models(model, depth + 1, f"{name}/{own or place}" if name else own or str(place))
        elif each.number in _ELSEWHERE:
            raise WeightsError(
                f"{message.file.name} refers to {_ELSEWHERE[each.number]}, which is not read",
                "ingest that model itself",
            )


SOURCE = Source(name="coreml", open=open_coreml, headers=True, ranges=True)
