"""What audits of the published models find, looked into by hand. What is not listed here counts as a false alarm."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from registry.types import Finding

__all__ = ["JUDGED", "Case", "case_of"]


class Case(NamedTuple):
    """Findings of a rule in models and layers by patterns: whether they are true, and what was seen."""

    rule: str
    model: str
    layer: str
    true: bool
    seen: str


JUDGED = (
    Case(
        "untrained",
        "chgnet/*",
        "state_dict.angle_layers.2.twoBody_bond.mlp_*.layers.1.weight",
        True,
        "uniform to the bound 1/16 of PyTorch's default, kurtosis 1.79 to 1.81: no gradient has reached the "
        "last angle layer",
    ),
    Case(
        "untrained",
        "espnetv2-seg/espnetv2_s_2.0_city_512x256",
        "merge_enc_dec_l*.wt_layer.1.weight",
        False,
        "Gaussian, all three at 0.6 of He's scale: most likely a start that weight decay shrank, but other layers of "
        "this decoder are trained, so that it counts as a false alarm",
    ),
    Case("untrained", "megnet/*", "*", False, "trained layers of order 32 that are Gaussian by chance"),
    Case(
        "scale",
        "espnetv2-seg/espnetv2_s_2.0_*",
        "base_net.level3_0.inp_reinf.*.conv.weight",
        True,
        "weights below 1e-5: weight decay has switched this branch off",
    ),
    Case(
        "rank",
        "espnetv2-seg/*",
        "merge_enc_dec_l*.wt_layer.1.weight",
        True,
        "rows of dead channels, a ten-thousandth of the largest and less",
    ),
    Case(
        "rank",
        "mobilenetv1-reg/mlperf-tiny-vww-mobilenetv1-0.25",
        "conv2d_*.kernel",
        True,
        "weight decay has emptied most channels of the last blocks: 71 of 128 to 234 of 256",
    ),
    Case(
        "statistics",
        "espnetv2-seg/espnetv2_s_2.0_pascal_*",
        "",
        True,
        "the variance behind the branch that is switched off has decayed to the smallest number, 6e-45",
    ),
    Case(
        "statistics",
        "resnet-cifar/distiller-resnet20-4D_regularized_5Lremoved*",
        "",
        True,
        "variances behind layers that pruning has removed have decayed to the smallest number, 6e-45",
    ),
    Case(
        "rows",
        "sb3-ppo-mlp/HopperBulletEnv-v0",
        "log_std",
        True,
        "one row is as it started, -2: its unit was never active",
    ),
)


def case_of(finding: Finding) -> Case | None:
    """The case that a finding is one of; None of one that has not been looked into."""
    for case in JUDGED:
        if (
            case.rule == finding.rule
            and fnmatchcase(finding.model, case.model)
            and fnmatchcase(finding.layer, case.layer)
        ):
            return case
    return None
