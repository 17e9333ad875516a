"""Caffe and ncnn: layers by type, in torch's layout, from files written by hand as the formats' sources say."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from registry.errors import NotFoundError, SourceError, UnsafeError, WeightsError
from registry.sources import expand, open_ref, plan_weights
from registry.types import ModelRef
from tests.sources.converted_files import FLOAT16, INT8, blob, caffe, field, layer, ncnn, number, plain, raw
from tests.sources.onnx_models import opened, values

if TYPE_CHECKING:
    from pathlib import Path


class TestCaffe:
    def test_layers_by_type(self, tmp_path: Path) -> None:
        conv, deconv, dense, gamma = values(5, 3, 3, 3), values(4, 2, 2, 2), values(6, 20), values(5)
        mean, variance = values(5, seed=1), np.abs(values(5, seed=2))
        content = (
            layer("conv1", "Convolution", [blob(conv), blob(values(5))])
            + layer("bn1", "BatchNorm", [blob(mean * 4), blob(variance * 4), blob(np.array([4], np.float32))])
            + layer("scale1", "Scale", [blob(gamma), blob(values(5))])
            + layer("relu1", "PReLU", [blob(gamma)])
            + layer("up", "Deconvolution", [blob(deconv)])
            + layer("fc", "InnerProduct", [blob(dense), blob(values(6))])
            + layer("fc_t", "InnerProduct", [blob(dense.T.copy())], extra=field(117, field(6, 1)))
            + layer("table", "Embed", [blob(values(9, 4))])
            + layer("odd", "SomethingElse", [blob(values(3, 3))])
        )
        path = caffe(tmp_path, content)
        assert expand(path)[0].source == "caffe"
        found = opened(path)
        for name, expected in {
            "conv1.weight": conv, "conv1.bias": values(5), "bn1.running_mean": mean, "bn1.running_var": variance,
            "scale1.weight": gamma, "relu1.weight": gamma, "up.weight": deconv, "fc.weight": dense,
            "fc.bias": values(6), "fc_t.weight": dense, "table.weight": values(9, 4), "odd.0": values(3, 3),
        }.items():  # fmt: skip
            np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)
            assert found[name].shape == expected.shape
        assert len(found) == 13

    def test_an_lstm_has_its_gates_in_another_order(self, tmp_path: Path) -> None:
        x, h, b = values(12, 5), values(12, 3), values(12)
        found = opened(caffe(tmp_path, layer("lstm", "LSTM", [blob(x), blob(b), blob(h)])))
        gates = np.split(x, 4)
        np.testing.assert_array_equal(found["lstm.weight_ih_l0"], np.concatenate([gates[i] for i in (0, 1, 3, 2)]))
        assert found["lstm.weight_hh_l0"].shape == (12, 3)

    def test_files_before_2014(self, tmp_path: Path) -> None:
        """V1LayerParameter: types by number, extents in four fields, matrices as (1, 1, out, in)."""
        conv, dense = values(5, 3, 3, 3), values(6, 20)
        content = b"".join(
            field(2, field(2, "x") + field(3, name) + field(4, name) + field(5, kind) + b"".join(
                field(6, blob(each, old=True)) for each in blobs))
            for name, kind, blobs in (("conv1", 4, [conv, values(5)]), ("fc8", 14, [dense, values(6)]))
        )  # fmt: skip
        path = caffe(tmp_path, content)
        assert expand(path)[0].source == "caffe"
        found = opened(path)
        np.testing.assert_array_equal(found["conv1.weight"], conv)
        np.testing.assert_array_equal(found["fc8.weight"], dense)
        np.testing.assert_array_equal(found["fc8.bias"], values(6))

    def test_doubles(self, tmp_path: Path) -> None:
        dense = values(6, 20, dtype=np.float64)
        assert opened(caffe(tmp_path, layer("fc", "InnerProduct", [blob(dense)])))["fc.weight"].dtype == np.float64

    def test_the_order_is_that_of_the_file(self, tmp_path: Path) -> None:
        names = ("z", "m", "10", "9", "a")
        content = b"".join(
            layer(name, "InnerProduct", [blob(values(4, 4, seed=n))], bottom="data", top="data")
            for n, name in enumerate(names)
        )
        with open_ref(expand(caffe(tmp_path, content))[0]) as checkpoint:
            assert [each.name for each in plan_weights(checkpoint).layers] == [f"{name}.weight" for name in names]

    @pytest.mark.parametrize(
        ("content", "error", "words"),
        [
            (layer("c", "Convolution", [blob(values(4, 4))[:-4]]), WeightsError, "damaged|bytes"),
            (layer("c", "Convolution", [field(7, field(1, number(10**6) * 2)) + field(5, bytes(16))]), WeightsError,
             "has 16 bytes"),
            (layer("c", "Convolution", [field(7, field(1, number(1) * 40)) + field(5, bytes(4))]), UnsafeError, "axes"),
            (layer("c", "Convolution", [field(7, field(1, number(4)))]), WeightsError, "has no numbers"),
            (layer("c", "Convolution", [b"\x2d" + bytes(4)]), WeightsError, "not in one piece"),
            (layer("c", "LSTM", [blob(values(5, 2))] * 3), WeightsError, "blob of an LSTM"),
            (layer("c", "ReLU", []), WeightsError, "holds no weights"),
            (layer("c", "ReLU", [blob(values(1))] * 70), UnsafeError, "more than 64 blobs"),
            (b"\xa2\x06\xff\xff\xff\xff\x7f", WeightsError, "damaged"),
        ],
    )  # fmt: skip
    def test_files_that_lie(self, content: bytes, error: type[SourceError], words: str, tmp_path: Path) -> None:
        refused("caffe", caffe(tmp_path, content), error, words)

    def test_a_file_cut_off_anywhere(self, tmp_path: Path) -> None:
        path = caffe(tmp_path, layer("fc", "InnerProduct", [blob(values(9, 9))]))
        whole = path.read_bytes()
        for tenth in range(10):
            path.write_bytes(whole[: len(whole) * tenth // 10])
            refused("caffe", path, WeightsError, "net")


def refused(source: str, path: Path, error: type[SourceError], words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=words) as caught, open_ref(ModelRef(source, str(path), "m")) as checkpoint:
            plan_weights(checkpoint)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


CONV, VECTOR = values(6, 4, 3, 2), values(6)
SCALES = np.abs(values(6)) + 1
CODES = values(6, 24, dtype=np.int8)
LSTM = (values(4, 3, 5), values(4, 3), values(4, 3, 3))
NCNN: dict[str, tuple[str, bytes, dict[str, np.ndarray]]] = {
    "convolution": ("Convolution 0=6 1=2 11=3 5=1 6=144", raw(CONV) + plain(VECTOR),
                    {"weight": CONV, "bias": VECTOR}),
    "depthwise": ("ConvolutionDepthWise 0=6 1=3 5=0 6=54 7=6", raw(values(6, 9)),
                  {"weight": values(6, 9).reshape(6, 1, 3, 3)}),
    "float16": ("Convolution 0=6 1=2 11=3 6=144", FLOAT16 + CONV.astype("<f2").tobytes(),
                {"weight": CONV.astype(np.float16)}),
    "float16-odd": ("InnerProduct 0=3 2=9", FLOAT16 + values(3, 3).astype("<f2").tobytes() + bytes(2),
                    {"weight": values(3, 3).astype(np.float16)}),
    "int8": ("InnerProduct 0=6 1=1 2=144 8=1", INT8 + CODES.tobytes() + plain(VECTOR) + plain(SCALES) + bytes(4),
             {"weight": CODES.astype(np.float32) / SCALES[:, None], "bias": VECTOR}),
    "table": ("InnerProduct 0=3 2=9", struct.pack("<I", 7) + plain(np.arange(256) / 8) + bytes(range(9)) + bytes(3),
              {"weight": (np.arange(9) / 8).reshape(3, 3).astype(np.float32)}),
    "deconvolution": ("Deconvolution 0=6 1=2 11=3 6=144", raw(CONV), {"weight": CONV.transpose(1, 0, 2, 3)}),
    "grouped-deconvolution": ("DeconvolutionDepthWise 0=6 1=1 6=18 7=2", raw(values(2, 3, 3)),
                              {"weight": values(2, 3, 3).transpose(0, 2, 1).reshape(6, 3, 1, 1)}),
    "batch-norm": ("BatchNorm 0=6", b"".join(plain(values(6, seed=n)) for n in range(4)),
                   dict(zip(("weight", "running_mean", "running_var", "bias"), (values(6, seed=n) for n in range(4)),
                            strict=True))),
    "scale": ("Scale 0=6 1=1", plain(VECTOR) * 2, {"weight": VECTOR, "bias": VECTOR}),
    "prelu": ("PReLU 0=6", plain(VECTOR), {"weight": VECTOR}),
    "layer-norm": ("LayerNorm 0=6 2=1", plain(VECTOR) * 2, {"weight": VECTOR, "bias": VECTOR}),
    "embed": ("Embed 0=6 1=4 3=24", raw(values(4, 6)), {"weight": values(4, 6)}),
    "gemm": ("Gemm 3=0 5=1 6=1 8=6 9=4 10=4", raw(values(4, 6)) + raw(VECTOR),
             {"weight": values(4, 6).T, "bias": VECTOR}),
    "memory": ("MemoryData 0=6", plain(VECTOR), {}),
    "lstm": ("LSTM 0=3 1=60", raw(LSTM[0]) + raw(LSTM[1]) + raw(LSTM[2]),
             {"weight_ih_l0": LSTM[0][[0, 1, 3, 2]].reshape(12, 5), "bias_l0": LSTM[1][[0, 1, 3, 2]].reshape(12),
              "weight_hh_l0": LSTM[2][[0, 1, 3, 2]].reshape(12, 3)}),
    "gru-both-ways": ("GRU 0=2 1=60 2=2", raw(values(2, 6, 5)) + raw(values(2, 4, 2)) + raw(values(2, 6, 2)),
                      {"weight_ih_l0": values(2, 6, 5)[0], "weight_ih_l0_reverse": values(2, 6, 5)[1],
                       "weight_hh_l0": values(2, 6, 2)[0], "weight_hh_l0_reverse": values(2, 6, 2)[1],
                       "bias_l0": values(2, 4, 2)[0].reshape(8),
                       "bias_l0_reverse": values(2, 4, 2)[1].reshape(8)}),
    "attention": ("MultiHeadAttention 0=4 1=2 2=16", (raw(values(4, 4)) + plain(values(4))) * 4,
                  {f"{p}.{leaf}": a for p in ("q_proj", "k_proj", "v_proj", "out_proj")
                   for leaf, a in (("weight", values(4, 4)), ("bias", values(4)))}),
}  # fmt: skip


class TestNcnn:
    @pytest.mark.parametrize("case", NCNN)
    def test_layers_by_type(self, case: str, tmp_path: Path) -> None:
        """The layer between two others, so that too few or too many bytes would be seen."""
        text, content, expected = NCNN[case]
        fence = ("InnerProduct 0=3 2=9", raw(values(3, 3)))
        path = ncnn(tmp_path, fence, (text, content), fence)
        assert expand(path)[0].source == "ncnn"
        found = opened(path)
        np.testing.assert_array_equal(found.pop("layer0.weight"), found.pop("layer2.weight"))
        assert set(found) == {f"layer1.{leaf}" for leaf in expected}
        for leaf, array in expected.items():
            np.testing.assert_allclose(found[f"layer1.{leaf}"], array, rtol=1e-6, err_msg=leaf)
            assert found[f"layer1.{leaf}"].shape == array.shape

    def test_precision_is_named(self, tmp_path: Path) -> None:
        text, content, _ = NCNN["int8"]
        with open_ref(expand(ncnn(tmp_path, (text, content)))[0]) as checkpoint:
            assert plan_weights(checkpoint).precision == "int8 ncnn"

    def test_the_bin_leads_to_the_param(self, tmp_path: Path) -> None:
        path = ncnn(tmp_path, ("InnerProduct 0=3 2=9", raw(values(3, 3))))
        assert expand(path.with_suffix(".bin"))[0].target == str(path)

    def test_an_unknown_layer_is_refused_by_name(self, tmp_path: Path) -> None:
        path = ncnn(tmp_path, ("MyLayer 0=3", b""), ("InnerProduct 0=3 2=9", raw(values(3, 3))))
        refused("ncnn", path, WeightsError, "layer 'layer0' is of type 'MyLayer', which is not known here")

    def test_the_binary_form_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "net.param.bin"
        path.write_bytes(struct.pack("<3i", 7767517, 1, 1))
        [ref] = expand(path)
        with pytest.raises(WeightsError, match="binary form") as caught:
            open_ref(ref)
        assert "text .param" in str(caught.value.remedy)

    def test_a_missing_bin_is_named(self, tmp_path: Path) -> None:
        path = ncnn(tmp_path, ("InnerProduct 0=3 2=9", raw(values(3, 3))))
        path.with_suffix(".bin").unlink()
        refused("ncnn", path, NotFoundError, r"net\.bin beside net\.param")

    @pytest.mark.parametrize(
        ("layers", "words"),
        [
            ([("InnerProduct 0=3 2=9", raw(values(3, 3))[:-1])], "ends early"),
            ([("InnerProduct 0=3 2=9", raw(values(3, 3)) + bytes(4))], "4 bytes more"),
            ([("InnerProduct 0=1000000 2=1000000000", raw(values(3, 3)))], "ends early"),
            ([("InnerProduct 0=3 2=-9", bytes(8))], "do not fit"),
            ([("InnerProduct 0=4 2=9", raw(values(3, 3)))], "do not fit"),
            ([("Convolution 0=3 1=0 6=9", raw(values(3, 3)))], "do not fit"),
            ([("InnerProduct 0=1e300 2=9", bytes(8))], "has a setting"),
            ([("InnerProduct 0=x 2=9", bytes(8))], "no number"),
            ([("InnerProduct nonsense", bytes(8))], "a setting that is none"),
            ([("InnerProduct 0=nan 2=9", bytes(8))], "has a setting"),
            ([("LSTM 0=3 1=61", bytes(8))], "of no size"),
        ],
    )  # fmt: skip
    def test_files_that_lie(self, layers: list[tuple[str, bytes]], words: str, tmp_path: Path) -> None:
        refused("ncnn", ncnn(tmp_path, *layers), WeightsError, words)

    @pytest.mark.parametrize("text", ["", "7767517\n", "7767517\n5 5\nInput x 0 1 a\n", "7767517\n1 1\nInput x\n",
                                      "7767517\n1 1\nInput x 9 9 a\n", "1\n1 1\n"])  # fmt: skip
    def test_texts_that_are_none(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "net.bin").write_bytes(bytes(8))
        (tmp_path / "net.param").write_text(text)
        refused("ncnn", tmp_path / "net.param", WeightsError, "net")
