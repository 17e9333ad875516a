"""Source for agents of stable-baselines3: ``policy.pth`` is read where it lies in the zip archive.

The archive's ``data`` is JSON in which objects stand twice: as text, and as pickles in base64 (``:serialized:``). The
text names the class of the policy; the pickles are never decoded. What the optimizer and the environment left is not
read. Layout: ``stable_baselines3/common/save_util.py``.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import NotFoundError, WeightsError
from registry.sources.base import Source
from registry.sources.files.archive import DAMAGED
from registry.sources.files.byte_source import open_bytes
from registry.sources.files.lazy_tensors import LazyCheckpoint
from registry.sources.files.zip_members import ZipMembers
from registry.sources.formats.nested_torch_files import aliases_of, check_sums_in, lazy_state, tensors_in
from registry.types import ModelCard, ModelFacts

if TYPE_CHECKING:
    from registry.types import Checkpoint, ModelRef

__all__ = ["SOURCE"]

_POLICY = "policy.pth"
_POLICY_LIMIT = 512 * 2**20  # bytes of a policy that has to be unpacked
_DATA_LIMIT = 8 * 2**20  # bytes; observations at the time of saving are in it
_CLASS = re.compile(r"<function (\w{1,100})\.__init__")


def open_sb3(ref: ModelRef) -> Checkpoint:
    """Open an agent's archive; raises the errors of `open_ref`."""
    source = open_bytes(ref.target)
    try:
        if ref.key is not None:
            raise NotFoundError(f"{source.name} has no entry {ref.key[:100]!r}", "it holds one policy: leave --key out")
        members = ZipMembers(source)
        policy = members.open(_POLICY, _POLICY_LIMIT)
        tensors = tensors_in(policy)
        if not tensors:
            raise WeightsError(f"{source.name} has a policy without weights", DAMAGED)
        card = ModelCard(architecture=_class_of(members)).updated(ref.card)

        def check() -> None:
            members.check_sums([_POLICY])
            check_sums_in(policy)

        facts = ModelFacts(aliases=aliases_of(tensors))
        return LazyCheckpoint(replace(ref, card=card), lazy_state(tensors, policy), facts, files=(source,), check=check)
    except BaseException:
        source.close()
        raise


def _class_of(members: ZipMembers) -> str:
    """The class of the policy, from the text of its functions; empty where it is not told."""
    if "data" not in members or members.size_of("data") > _DATA_LIMIT:
        return ""
    try:
        data = json.loads(members.read("data", _DATA_LIMIT))
    except (ValueError, RecursionError):
        return ""
    described = data.get("policy_class") if isinstance(data, dict) else None
    text = described.get("__init__") if isinstance(described, dict) else None
    match = _CLASS.match(text) if isinstance(text, str) else None
    return match[1] if match else ""


SOURCE = Source(name="sb3", open=open_sb3, headers=True, ranges=True)
