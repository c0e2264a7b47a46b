"""Files of arrays: what is written is what the library writes, and what is broken is refused."""

import io
import json

import numpy as np
import pytest
import safetensors.numpy

from recsys_embed.storage import safetensors_writer
from recsys_embed.storage.safetensors_reader import read_arrays
from recsys_embed.storage.safetensors_writer import write_arrays


def tensors(header, data=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_arrays_are_those_that_safetensors_writes(tmp_path):
    from safetensors.numpy import save

    random = np.random.default_rng(0)
    kinds = ("<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?")
    given = {f"a{n}": random.integers(0, 2, (n, 3)).astype(kind) for n, kind in enumerate(kinds)}
    for array, back in ((given[name], found) for name, found in read_arrays(save(given, {"about": "this"})).items()):
        assert array.dtype == back.dtype and np.array_equal(array, back) and back.flags.aligned
    assert read_arrays(save(given)).keys() == given.keys()
    odd = tensors(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}} ')  # at an odd place
    assert read_arrays(odd)["x"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"1234567", (99).to_bytes(8, "little") + b"{}", bytes([255] * 8) + b"{}", tensors(b"{"), tensors(b"[]"),
        tensors(b"[" * 100_000), tensors(b"\xff{}"), tensors({"x": 3}), tensors({"x": {"dtype": "F32"}}),
        *(
            tensors({"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changed}})
            for changed in (
                {"dtype": "BF16"}, {"dtype": []}, {"shape": [2, 3]}, {"shape": [-2, -2]}, {"shape": [4.0]},
                {"shape": [1 << 40, 1 << 40]}, {"data_offsets": [1, 17]}, {"data_offsets": [-8, 8]}, {"more": 1},
                {"shape": 4}, {"data_offsets": [16, 0]}, {"data_offsets": [0]}, {"shape": [True, 4]},
                {"data_offsets": ["0", "16"]},
            )
        ),
    ],
)  # fmt: skip
def test_a_broken_header_is_refused(data):
    with pytest.raises(ValueError, match="its header"):
        read_arrays(data)


def test_arrays_are_written_one_after_the_other_as_the_library_reads_them(monkeypatch):
    monkeypatch.setattr(safetensors_writer, "_CHUNK", 16)
    random, kinds = (
        np.random.default_rng(0),
        ("<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?", ">i4", ">f8"),
    )
    given = {f"a{n}": random.integers(0, 99, (n, 3)).astype(kind) for n, kind in enumerate(kinds)}
    write_arrays(file := io.BytesIO(), given)
    little = {name: array.astype(array.dtype.newbyteorder("<")) for name, array in given.items()}
    assert file.getvalue() == safetensors.numpy.save(little)
    given |= {"turned": np.arange(12.0).reshape(3, 4).T, "none": np.zeros((0, 4), np.float32), "one": np.ones(())}
    write_arrays(file := io.BytesIO(), given)
    for read in (safetensors.numpy.load(file.getvalue()), read_arrays(file.getvalue())):
        assert read.keys() == given.keys()
        for name, array in given.items():
            assert read[name].shape == array.shape and np.array_equal(read[name], array), name
    assert all(array.flags.aligned for array in read_arrays(file.getvalue()).values())
