"""What the code of a TorchScript archive says of its tensors, read as text: it is never compiled.

A frozen model has lost the names of its weights: they are ``CONSTANTS.c0``, ``CONSTANTS.c1``, ... of the code, which
is one function after another without branches for the most part. The place of a constant among the arguments of an
operation tells what it is (``torch.linear(x, CONSTANTS.c3, CONSTANTS.c4)``: a weight and a bias), and their order in
the text is the order of computation. The code of a module lists the names of its parameters and buffers.

The text is what torch's ``python_print.cpp`` writes.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Use", "constant_uses", "declared", "recurrent_name"]

_TOKEN = re.compile(
    r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|CONSTANTS\.c(?P<constant>\d{1,7})(?!\w)|[A-Za-z_][\w.]*|[()\[\],=\n]|#[^\n]*"
)
_CLASS = re.compile(r"^class (\w+)\b", re.MULTILINE)
_LISTED = re.compile(r"^  __(?:parameters|buffers)__ = \[([^\]\n]*)\]", re.MULTILINE)
_WORD = re.compile(r"\"([^\"\\]{1,1000})\"")
_MAX_LIST = 1000  # weights of a recurrent layer
_MAX_DEPTH = 200  # of calls within calls; what is deeper tells nothing

# By the last part of an operation's name: what its arguments are, by their place.
_CONVOLUTION = ("weight", "bias")
_NORM = ("weight", "bias", "running_mean", "running_var")
_PLACES: tuple[tuple[str, int, tuple[str, ...]], ...] = (  # operations, the place of the first, and what each is
    ("conv1d conv2d conv3d _convolution convolution _conv2d conv_transpose1d conv_transpose2d conv_transpose3d", 1,
     _CONVOLUTION),
    ("mkldnn_convolution conv2d_relu linear bilinear", 1, _CONVOLUTION),
    ("batch_norm instance_norm native_batch_norm _batch_norm_impl_index", 1, _NORM),
    ("layer_norm native_layer_norm group_norm rms_norm", 2, _CONVOLUTION),
    ("embedding embedding_bag", 0, ("weight",)),
    ("prelu", 1, ("weight",)),
    ("addmm baddbmm", 0, ("bias", "", "product")),
    ("matmul mm bmm", 0, ("product", "product")),
    ("lstm gru rnn_tanh rnn_relu", 2, ("recurrent",)),
    ("linear_dynamic linear_relu_dynamic linear_dynamic_fp16 linear_relu_dynamic_fp16", 1, ("packed",)),
    ("linear_clamp_run", 1, ("packed",)),
    ("conv1d_dynamic conv2d_dynamic conv3d_dynamic conv2d_clamp_run conv2d_transpose_clamp_run", 1, ("packed",)),
    ("add add_ sub", 0, ("pos_table", "pos_table")),
    ("expand cat", 0, ("token",)),
)  # fmt: skip
_ROLES = {
    word: {first + at: role for at, role in enumerate(roles) if role}
    for words, first, roles in _PLACES
    for word in words.split()
}
_TURNING = ("t", "numpy_T", "transpose")
_RECURRENT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Use(NamedTuple):
    """What a constant is: ``role`` as the last part of a name; ``turned``: it is multiplied from the right as stored.

    ``place``: of the weights of a recurrent layer, the place in their list.
    """

    role: str = ""
    turned: bool = False
    place: int = 0


class _Frame:
    """A call or list that is open: what is called, and the place of the argument at hand."""

    __slots__ = ("at", "called")

    def __init__(self, called: str, at: int = 0) -> None:
        self.called = called
        self.at = at


def constant_uses(text: str) -> dict[int, Use]:
    """Constants by number, in the order in which they are first used, each with its use; one pass, no recursion.

    A variable that is a constant, one turned, or a list of them, is followed to where it is used.
    """
    found: dict[int, Use] = {}
    named: list[int] = []
    for target, frames, number, turned, variables in _mentions(text):
        calls = [frame.called for frame in frames]
        if target and (calls == ["["] or all(call in _TURNING for call in calls[:2])):
            variables.setdefault(target, []).append((number, turned))
            named.append(number)
            continue
        use = _use_of(frames, turned=turned)
        if number not in found or (not found[number].role and use.role):
            found[number] = use
    return found | {number: Use() for number in named if number not in found}


_Variables = dict[str, list[tuple[int, bool]]]


def _mentions(text: str) -> Iterator[tuple[str, list[_Frame], int, bool, _Variables]]:
    """Each mention of a constant: the variable that a statement assigns, the open calls, the number, and if turned.

    The last of each is a table of variables that the caller fills: what they stand for.
    """
    variables: _Variables = {}
    frames: list[_Frame] = []
    skipped = 0  # brackets beyond the depth that is followed
    word = target = ""
    for token in _TOKEN.finditer(text):
        part = token[0]
        number = token["constant"]
        if part in "([":
            if len(frames) >= _MAX_DEPTH:
                skipped += 1
            else:
                frames.append(_Frame(word.rpartition(".")[2] if part == "(" else "["))
        elif part in ")]":
            if skipped:
                skipped -= 1
            elif frames:
                frames.pop()
        elif part == ",":
            if frames:
                frames[-1].at += 1
        elif part == "=":
            if not frames:
                target = word
        elif part == "\n":
            if not frames:
                target = ""
        elif number is not None or part in variables:
            stands_for = [(int(number), False)] if number is not None else variables[part]
            turning = bool(frames) and frames[-1].called in _TURNING
            for place, (known, turned) in enumerate(stands_for[:_MAX_LIST]):
                within = frames if len(stands_for) == 1 else [*frames, _Frame("[", place)]
                yield target, within, known, turned != turning, variables
        word = part if part[0].isalpha() or part[0] == "_" else ""


def _use_of(frames: list[_Frame], *, turned: bool) -> Use:
    """What a constant is among the arguments of the calls that are open around it."""
    inner = len(frames) - 1
    while inner >= 0 and (frames[inner].called in _TURNING or not frames[inner].called):
        inner -= 1
    if inner < 0:
        return Use()
    place = 0
    if frames[inner].called == "[":
        place = frames[inner].at
        inner -= 1
        if inner < 0:
            return Use()
    frame = frames[inner]
    role = _ROLES.get(frame.called, {}).get(frame.at, "")
    if role == "product":  # x W, and W is (in, out) unless it is turned; W x, and it is (out, in)
        return Use("weight", turned=turned == (frame.called != "addmm" and frame.at == 0))
    if role == "recurrent":
        return Use(role, place=place)
    return Use(role)


def recurrent_name(place: int, step: int, *, both: bool) -> str:
    """The name of a recurrent layer's weight by its place in the list, of ``step`` weights a layer and direction."""
    part, at = _RECURRENT[place % step], place // step
    return f"{part}_l{at // 2}{'_reverse' * (at % 2)}" if both else f"{part}_l{at}"


def declared(text: str) -> dict[str, frozenset[str] | None]:
    """Names of the parameters and buffers of every class in a file of code; None where it does not list buffers."""
    found: dict[str, frozenset[str] | None] = {}
    starts = [*_CLASS.finditer(text)]
    for match, after in zip_longest(starts, starts[1:]):
        body = text[match.end() : after.start() if after else len(text)]
        names = frozenset(name for listed in _LISTED.findall(body[:1_000_000]) for name in _WORD.findall(listed))
        found[match[1]] = names if "\n  __buffers__ = " in body[:1_000_000] else None
    return found
