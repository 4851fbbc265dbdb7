"""The GGUF container against files that the `gguf` package writes, whole and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.errors import ModelError
from fireside.gguf import GGMLType, GGUFFile


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_bool("flag", True)
    writer.add_array("words", ["", "naïve", "日本", "a" * 300])
    writer.add_array("scores", [0.5, -1.0])
    writer.add_array("kinds", [1, 2, 3])
    writer.add_tensor("plain", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("packed", np.zeros((4, 18), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_what_was_written_is_read(path: Path) -> None:
    file = GGUFFile(path)
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["llama.block_count"] == 3
    assert file.metadata["flag"] is True
    assert file.metadata["words"] == ["", "naïve", "日本", "a" * 300]
    assert file.metadata["scores"] == [0.5, -1.0]
    assert file.metadata["kinds"] == [1, 2, 3]
    plain, packed = file.tensors["plain"], file.tensors["packed"]
    assert (plain.shape, plain.type, plain.nbytes) == ((2, 3), GGMLType.F32, 24)
    values = np.frombuffer(file.data, np.float32, 6, plain.offset)
    assert values.tolist() == [0, 1, 2, 3, 4, 5]
    assert (packed.shape, packed.type, packed.nbytes) == ((4, 32), GGMLType.Q4_0, 72)


def test_every_shorter_file_is_refused_with_its_name(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    last = GGUFFile(path).tensors["packed"]
    for length in (*range(0, 64), *range(64, last.offset, 7), last.offset + last.nbytes - 1):  # then comes padding
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf"):
            GGUFFile(cut)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_a_model_error_or_goes_unnoticed(path: Path, tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    target = tmp_path / "damaged.gguf"
    target.write_bytes(damaged)
    try:
        file = GGUFFile(target)
    except ModelError as error:
        str(error).encode()  # can be printed, whatever bytes the file named things by
        return
    assert all(tensor.offset + tensor.nbytes <= len(damaged) for tensor in file.tensors.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: b"PK\x03\x04" + raw[4:], "not a GGUF file"),
        (lambda raw: raw[:4] + b"\x09" + raw[5:], "version 9"),
        (lambda raw: raw[:8] + b"\xff" * 8 + raw[16:], "claims .* items"),
        (lambda raw: raw.replace(b"plain", b"pl\xffin"), "header cannot be read"),
    ],
)
def test_what_it_is_not_is_said(path: Path, tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    target = tmp_path / "other.gguf"
    target.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=message):
        GGUFFile(target)


def test_an_unknown_tensor_type_is_named_with_what_is_supported(path: Path, tmp_path: Path) -> None:
    raw = bytearray(path.read_bytes())
    at = raw.index(b"packed") + len(b"packed") + 4 + 2 * 8  # rank and two dimensions follow the name
    raw[at] = 16
    target = tmp_path / "iq2.gguf"
    target.write_bytes(raw)
    with pytest.raises(ModelError, match=r"packed has ggml type 16.*supported: F32, F16, Q4_0"):
        GGUFFile(target)
