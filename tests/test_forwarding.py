"""No method only forwards: whoever reads a question would step through it for nothing."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "registry.architectures.catalogue_file.Catalogue.close": "the file's connection is its own",
    "registry.catalog.registry.Registry.close": "waits for the question at work, as all methods do",
    "registry.catalog.registry.Registry.current": "asks an address: a database of another version is not opened",
    "registry.ingest.executors.inprocess.InProcess.close": "every executor has it",
    "registry.ingest.executors.inprocess.InProcess.submit": "every executor has it",
    "registry.storage.portable.portable_file.PortableFile.close": "the file's connection is its own",
    "registry.storage.portable.portable_file.PortableFile.models": "exports and files are read by one protocol",
    "registry.storage.store.Store.close": "the engine is its own",
    **{
        f"registry.types.{answer}.to_frame": "an answer's frame is made where all frames are"
        for answer in (
            "audits.Audit",
            "calibrations.Calibrated",
            "choices.Compression",
            "choices.Selection",
            "partitions.Partition",
            "searches.Search",
        )
    },
    **{
        f"registry.sources.{source}.close": "the file is its own"
        for source in ("files.byte_source.LocalBytes", "files.byte_parts.Temporary", "formats.hdf5.Hdf5")
    },
    **{
        f"registry.sources.{value}": "a value that follows from the fields"
        for value in (
            "formats.dcp.ShardedTensor.place",
            "formats.onnx.tensor_headers.Stored.elements",
            "formats.pickles.numpy_arrays.PickledArray.place",
            "formats.pickles.stored_tensors.RefusedTensor.place",
            "formats.pickles.torch_values.WrappedTensor.class_name",
            "formats.pickles.torch_values.WrappedTensor.place",
        )
    },
    "registry.sources.formats.hdf5.Hdf5.read_at": "datasets see the file through it alone",
    "registry.sources.formats.onnx.constants.Constants.tensor": "what reads a tensor is its own",
    "registry.sources.formats.pickles.opcodes._Machine.op_pop_mark": "an opcode",
    "registry.sources.effective_weights.EffectiveTensor.info": "a value that follows from the fields",
    "registry.sources.effective_weights.TensorView.raw": "steps see stored tensors through the view alone",
    "registry.types.choices.Aim.place": "a value that follows from the fields",
    "registry.types.choices.ExpectedChange.place": "a value that follows from the fields",
    "registry.types.requirements.MetricChange.place": "a value that follows from the fields",
    "registry.types.weights.Metric.place": "a value that follows from the fields",
}
"""Methods that only forward, each with the reason why it is there all the same."""


def is_own(node: ast.expr, parameters: set[str]) -> bool:
    """Whether an expression is a parameter of the method, or an attribute of ``self`` or a parameter."""
    while isinstance(node, ast.Attribute):
        node = node.value
    if isinstance(node, ast.Starred):
        return is_own(node.value, parameters)
    return isinstance(node, ast.Name) and node.id in parameters


def forwards(method: ast.FunctionDef) -> bool:
    """Whether a method is nothing but one call whose arguments are its own parameters or attributes of ``self``."""
    body = [node for node in method.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    if len(body) == 1 and isinstance(body[0], ast.With):
        [lock, *others] = body[0].items
        if not others and isinstance(lock.context_expr, ast.Attribute) and lock.context_expr.attr.endswith("lock"):
            body = body[0].body
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr) or not isinstance(body[0].value, ast.Call):
        return False
    call = body[0].value
    callee = call.func
    while isinstance(callee, ast.Attribute):
        callee = callee.value
    named = method.args.posonlyargs + method.args.args + method.args.kwonlyargs
    rest = [one for one in (method.args.vararg, method.args.kwarg) if one is not None]
    parameters = {argument.arg for argument in (*named, *rest)}
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return isinstance(callee, ast.Name) and all(is_own(each, parameters) for each in given)


def forwarding(source: str, module: str) -> set[str]:
    """Methods of the source's classes that only forward, dunder methods left out: Python asks for those."""
    return {
        f"{module}.{found.name}.{method.name}"
        for found in ast.walk(ast.parse(source))
        if isinstance(found, ast.ClassDef)
        for method in found.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("__") and forwards(method)
    }


def test_no_method_only_forwards() -> None:
    found: set[str] = set()
    for path in sorted((ROOT / "registry").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found |= forwarding(path.read_text(encoding="utf-8"), module)
    assert found == set(ALLOWED)


def test_a_forwarding_method_would_be_seen() -> None:
    source = '''
class Asked:
    def plain(self, name, *, k=1):
        """Forwards."""
        from somewhere import ask

        return ask(self._store, name, k=k)

    def locked(self, *names, **options):
        with self._lock:
            return self._store.ask(*names, **options)

    def bare(self):
        self._store.close()

    def __len__(self):
        return len(self._rows)

    def opens(self, name):
        return self._opened().ask(name)

    def checks(self, name):
        return ask(text(name))

    def fixed(self, name):
        return ask(name, True)

    def several(self, name):
        found = ask(name)
        return found
'''
    assert forwarding(source, "m") == {"m.Asked.plain", "m.Asked.locked", "m.Asked.bare"}
