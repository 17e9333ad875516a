"""Write the reference in docs/python.md from signatures and docstrings, or say that it has fallen behind.

python scripts/python_docs.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
import tempfile
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from registry import Among, Registry, errors, frames, types

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
MARK = "<!-- reference: written by scripts/python_docs.py -->\n"
SPECIAL = {
    "__getitem__": "reg[name]",
    "__contains__": "name in reg",
    "__iter__": "iter(reg)",
    "__len__": "len(reg)",
    "__bool__": "bool(reg)",
}
"""How special methods of a registry are called."""


def markdown(docstring: str | None) -> str:
    """Return a docstring as Markdown: code in single backticks, sections in bold, nothing else taken as markup."""
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.cleandoc(docstring or ""))
    text = re.sub(r"^(\w[\w ]*)\n-{3,}$", r"**\1**\n", text, flags=re.MULTILINE)
    parts = re.split(r"(`[^`]+`|\*\*\w[\w ]*\*\*\n)", text)
    return "".join(part if at % 2 else re.sub(r"([*<\[])", r"\\\1", part) for at, part in enumerate(parts))


def default_of(value: Any) -> str:
    """Return a default value as it would be written."""
    return value.__name__ if inspect.isfunction(value) or isinstance(value, type) else repr(value)


def signature(name: str, function: Any) -> str:
    """Return the call with its types, on one line where it fits, else one parameter a line."""
    found = inspect.signature(function)
    words: list[str] = []
    parameters = [one for one in found.parameters.values() if one.name != "self"]
    for at, one in enumerate(parameters):
        before = parameters[at - 1].kind if at else None
        if one.kind is one.KEYWORD_ONLY and before not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            words.append("*")
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        word = f"{stars}{one.name}" + (f": {one.annotation}" if one.annotation is not one.empty else "")
        words.append(word + (f" = {default_of(one.default)}" if one.default is not one.empty else ""))
        after = parameters[at + 1].kind if at + 1 < len(parameters) else None
        if one.kind is one.POSITIONAL_ONLY and after is not one.POSITIONAL_ONLY:
            words.append("/")
    returns = f" -> {found.return_annotation}" if found.return_annotation is not found.empty else ""
    line = f"{name}({', '.join(words)}){returns}"
    return line if len(line) <= 110 else f"{name}(\n    " + ",\n    ".join(words) + f",\n){returns}"


def methods(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods of a class, by name."""
    return [(name, member) for name, member in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"]


def described(name: str, function: Any) -> str:
    """Return a call in a block and what its docstring says."""
    return f"```text\n{signature(name, function)}\n```\n\n{markdown(function.__doc__)}\n"


def attributes(registry: Registry) -> list[tuple[str, Any]]:
    """Return the attributes of a registry whose methods are for rarer needs, by name."""
    return sorted((name, value) for name, value in vars(registry).items() if name[0] != "_" and methods(type(value)))


def values() -> list[type]:
    """Return the dataclasses that the methods take and return, and what those hold, by name."""
    known = {name: getattr(types, name) for name in types.__all__ if is_dataclass(getattr(types, name))}
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder) / "none.db") as registry:
        owners: list[type] = [Registry, Among, *(type(value) for _, value in attributes(registry))]
    waiting = ["Filter ModelCard", *(str(inspect.signature(one)) for owner in owners for _, one in methods(owner))]
    while waiting:
        named = set(re.findall(r"\w+", waiting.pop())) & known.keys() - found
        found |= named
        waiting += [" ".join(str(field.type) for field in fields(known[name])) for name in named]
    return [known[name] for name in sorted(found)]


def value(kind: Any) -> str:
    """Return a dataclass: what it is, its fields, and what is computed from them."""
    lines = [
        f"#### {kind.__name__}",
        "",
        markdown(kind.__doc__),
        "",
        "| field | type | default |",
        "| --- | --- | --- |",
    ]
    for field in fields(kind):
        default = "" if field.default is MISSING else f"`{default_of(field.default)}`"
        kind_of = str(field.type).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{kind_of}` | {default} |")
    computed = inspect.getmembers(kind, lambda member: isinstance(member, property))
    lines += ["", *(f"- `{name}`: {markdown(one.fget.__doc__)}" for name, one in computed)] if computed else []
    more = methods(kind)
    lines += ["", *(f"- `{signature(name, one)}`: {markdown(one.__doc__)}" for name, one in more)] if more else []
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference: registry, attributes, values, frames, errors."""
    parts = [f"### Registry\n\n```text\n{signature('Registry', Registry.__init__)}\n```\n"]
    parts.append(markdown(Registry.__doc__) + "\n")
    parts += [f"#### {call}\n\n{markdown(vars(Registry)[name].__doc__)}\n" for name, call in SPECIAL.items()]
    parts += [f"#### {name}\n\n{described(f'reg.{name}', method)}" for name, method in methods(Registry)]
    with tempfile.TemporaryDirectory() as folder, Registry(Path(folder) / "none.db") as registry:
        for name, held in attributes(registry):
            parts.append(f"### reg.{name}\n\n{markdown(type(held).__doc__)}\n")
            calls = methods(type(held))
            parts += [f"#### {name}.{call}\n\n{described(f'reg.{name}.{call}', one)}" for call, one in calls]
    parts.append(f"### Among\n\n```text\n{signature('Among', Among.__init__)}\n```\n\n{markdown(Among.__doc__)}\n")
    parts += [f"#### among.{name}\n\n{described(f'among.{name}', method)}" for name, method in methods(Among)]
    parts.append("### Values\n\nFrozen dataclasses of `registry.types`.\n")
    parts += [value(kind) for kind in values()]
    parts.append(f"### Frames\n\n`registry.frames`: {markdown(frames.__doc__)}\n")
    parts += [f"#### frames.{name}\n\n{described(f'frames.{name}', getattr(frames, name))}" for name in frames.__all__]
    rows = [
        "### Errors",
        "",
        "`registry.errors`; the exit code is that of `archreg`.",
        "",
        "| error | is a | exit code | when |",
    ]
    rows.append("| --- | --- | --- | --- |")
    for name in sorted(errors.__all__, key=lambda one: (one != "RegistryError", one)):
        kind = getattr(errors, name)
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        rows.append(f"| `{name}` | {bases} | {kind.exit_code} | {markdown(kind.__doc__).splitlines()[0]} |")
    return "\n".join([*parts, "\n".join(rows) + "\n"])


def render() -> str:
    """Return the page with its reference written anew."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + reference()


def main(arguments: list[str]) -> int:
    """Write the page; with ``--check`` only compare it, and return 1 where it differs."""
    text = render()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/python.md is not what the package says: python scripts/python_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
