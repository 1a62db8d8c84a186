"""Reading the original's checkpoints: what is there comes back, nothing in them runs, damage is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.upstream.checkpoint import CheckpointInvalid, StoredTensor, read_checkpoint
from model_hosts.talking_gaussian.upstream.model import UpstreamModel, read_model
from tests.doubles import upstream
from tests.doubles.upstream import Raw, write_checkpoint


@pytest.fixture(scope="module")
def model() -> UpstreamModel:
    return upstream.make_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "a.pth"
    value = (
        1,
        OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3)),
        {"lr": 0.5, "on": True},
        [None, "x"],
    )
    return write_checkpoint(path, value).read_bytes()


def assert_equal(found: UpstreamModel, expected: UpstreamModel) -> None:
    assert found.audio_features == expected.audio_features
    assert found.tensors.keys() == expected.tensors.keys()
    for name, value in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], value, err_msg=name)


def test_containers_numbers_and_tensors_come_back(tmp_path: Path, small: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(small)
    count, weights, options, rest = read_checkpoint(tmp_path / "a.pth")
    assert (count, options, rest) == (1, {"lr": 0.5, "on": True}, [None, "x"])
    np.testing.assert_array_equal(weights["a"].array(), [[0, 1, 2], [3, 4, 5]])


def test_the_fused_checkpoint_is_a_whole_model(tmp_path: Path, model: UpstreamModel) -> None:
    path = write_checkpoint(tmp_path / "chkpnt_fuse_latest.pth", upstream.fused(model))
    assert_equal(read_model([path]), model)


def test_face_and_mouth_together_are_a_whole_model(tmp_path: Path, model: UpstreamModel) -> None:
    paths = [
        write_checkpoint(tmp_path / f"chkpnt_{branch}.pth", upstream.single(model, branch))
        for branch in ("mouth", "face")
    ]
    assert_equal(read_model(paths), model)


def test_harmonics_that_were_not_switched_on_are_not_drawn(tmp_path: Path, model: UpstreamModel) -> None:
    content = list(upstream.fused(model))
    content[0] = upstream.capture(model, "face", degree=1)
    found = read_model([write_checkpoint(tmp_path / "a.pth", tuple(content))])
    np.testing.assert_array_equal(found.tensors["face.sh"][:, :4], model.tensors["face.sh"][:, :4])
    assert not found.tensors["face.sh"][:, 4:].any()
    assert found.tensors["mouth.sh"][:, 4:].any()


def test_one_branch_alone_is_refused(tmp_path: Path, model: UpstreamModel) -> None:
    path = write_checkpoint(tmp_path / "chkpnt_mouth.pth", upstream.single(model, "mouth"))
    with pytest.raises(CheckpointInvalid, match="the face is missing; give the chkpnt_fuse file"):
        read_model([path])


def test_a_branch_that_comes_twice_is_refused(tmp_path: Path, model: UpstreamModel) -> None:
    fuse = write_checkpoint(tmp_path / "fuse.pth", upstream.fused(model))
    mouth = write_checkpoint(tmp_path / "mouth.pth", upstream.single(model, "mouth"))
    with pytest.raises(CheckpointInvalid, match="mouth a second time"):
        read_model([fuse, mouth])


def _changed(model: UpstreamModel, name: str, value: np.ndarray) -> tuple[Any, ...]:
    return upstream.fused(UpstreamModel(model.tensors | {name: value}, model.audio_features))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("face.quat", np.zeros((30, 3), np.float32), r"face\.quat is \[30, 3\], but must be \[30, 4\]"),
        ("face.sh", np.zeros((30, 16, 3), np.float32), "colours of another degree than 2"),
        ("mouth.xyz", np.full((12, 3), np.nan, np.float32), r"mouth\.xyz has numbers that are not finite"),
        ("mouth.xyz", np.zeros((0, 3), np.float32), "the mouth has 0 Gaussians"),
        (
            "face.net.encoder_xy.embeddings",
            np.zeros((8, 1), np.float32),
            r"encoder_xy\.embeddings is \[8, 1\], but must be \[9464, 1\]",
        ),
        (
            "mouth.net.audio_net.encoder_conv.0.weight",
            np.zeros((32, 9, 3), np.float32),
            r"is \[32, 9, 3\], but must be \[32, 5, 3\]",
        ),
    ],
)
def test_wrong_shapes_and_numbers_are_named(
    tmp_path: Path, model: UpstreamModel, name: str, value: np.ndarray, message: str
) -> None:
    path = write_checkpoint(tmp_path / "a.pth", _changed(model, name, value))
    with pytest.raises(CheckpointInvalid, match=message):
        read_model([path])


def test_a_missing_tensor_is_named(tmp_path: Path, model: UpstreamModel) -> None:
    content = upstream.fused(model)
    del content[1]["sigma_net.net.1.weight"]
    with pytest.raises(CheckpointInvalid, match=r"face\.net\.sigma_net\.net\.1\.weight is missing"):
        read_model([write_checkpoint(tmp_path / "a.pth", content)])


@pytest.mark.parametrize("content", [(1, 2), {"model": np.zeros(3, np.float32)}, (1, {}, (), {})])
def test_other_checkpoints_are_refused(tmp_path: Path, content: Any) -> None:
    path = write_checkpoint(tmp_path / "resnet.pth", content)
    with pytest.raises(CheckpointInvalid, match=r"none of TalkingGaussian's|not stored as"):
        read_model([path])


class _Evil:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self._marker}'",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_program_in_the_file_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    program = pickle.dumps(_Evil(marker), protocol)
    path = write_checkpoint(tmp_path / "evil.pth", None, program)
    with pytest.raises(CheckpointInvalid, match=r"wants to use|holds the instruction"):
        read_checkpoint(path)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(program)
    with pytest.raises(CheckpointInvalid, match="no PyTorch checkpoint"):
        read_checkpoint(bare)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "builtins\ngetattr",
        "torch\nload",
        "torch._utils\n__builtins__",
        "numpy\nload",
        "numpy.core.multiarray\n_reconstruct",
        "collections\nOrderedDict.__init__",
    ],
)
def test_names_that_are_not_listed_are_refused(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path / "a.pth", (Raw(f"c{name}\n".encode()), 1))
    with pytest.raises(CheckpointInvalid, match=r"a\.pth wants to use .*it was not run"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02Nr\xff\xff\xff\xff.", "memo slot"),
        (b"\x80\x02N2.", "instruction DUP"),
        (b"\x80\x02(", "is damaged"),
        (b"", "is damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "is damaged"),
        (b"\x80\x02h\x05.", "is damaged"),
        (b"\x80\x02ccollections\nOrderedDict\nJ\x01\x00\x00\x00R.", "is damaged"),
    ],
)
def test_damaged_programs_are_refused(tmp_path: Path, program: bytes, message: str) -> None:
    path = write_checkpoint(tmp_path / "a.pth", None, program)
    with pytest.raises(CheckpointInvalid, match=message):
        read_checkpoint(path)


def _tensor_program(
    key: str = "0", count: int = 4, offset: int = 0, size: tuple = (4,), stride: tuple = (1,)
) -> Raw:
    storages = upstream.Storages()
    pid = ("storage", Raw(b"ctorch\nFloatStorage\n"), key, "cpu", count)
    storage = Raw(upstream.pickled(pid, storages) + b"Q")
    arguments = (storage, offset, size, stride, False, OrderedDict())
    return Raw(b"ctorch._utils\n_rebuild_tensor_v2\n" + upstream.pickled(arguments, storages) + b"R")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_tensor_program(key="7"), "lacks data/7"),
        (_tensor_program(key="../0"), "unknown kind"),
        (_tensor_program(count=5, size=(5,)), "data/0 has 16 bytes, not 20"),
        (_tensor_program(offset=1), "beyond its storage"),
        (_tensor_program(offset=-1), "beyond its storage"),
        (_tensor_program(size=(2, 2), stride=(0, 1)), "not stored in one piece"),
        (_tensor_program(size=(-4,)), "impossible shape"),
        (_tensor_program(size=(2, 2)), "impossible shape"),
    ],
)
def test_tensors_that_lie_about_their_numbers_are_refused(tmp_path: Path, tensor: Raw, message: str) -> None:
    path = write_checkpoint(tmp_path / "a.pth", (np.zeros(4, np.float32), tensor))
    with pytest.raises(CheckpointInvalid, match=message):
        read_checkpoint(path)[1].array()


def test_packed_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N." + bytes(1 << 20))
    with pytest.raises(CheckpointInvalid, match=r"data\.pkl is packed"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"none\.pth cannot be read"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointInvalid, match=r"text\.pth is no PyTorch checkpoint"):
        read_checkpoint(tmp_path / "text.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a/b", b"")
    with pytest.raises(CheckpointInvalid, match=r"it has 0 data\.pkl"):
        read_checkpoint(tmp_path / "zip.pth")


def _all_arrays(value: Any) -> None:
    if isinstance(value, StoredTensor):
        value.array()
    elif isinstance(value, dict):
        for item in value.values():
            _all_arrays(item)
    elif isinstance(value, tuple | list):
        for item in value:
            _all_arrays(item)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, small: bytes, data: st.DataObject) -> None:
    (tmp_path / "a.pth").write_bytes(small[: data.draw(st.integers(0, len(small) - 1))])
    with pytest.raises(CheckpointInvalid):
        _all_arrays(read_checkpoint(tmp_path / "a.pth"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_never_do_more_than_refuse(tmp_path: Path, small: bytes, data: st.DataObject) -> None:
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(small) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.pth").write_bytes(bytes(changed))
    try:
        _all_arrays(read_checkpoint(tmp_path / "a.pth"))
    except CheckpointInvalid as error:
        assert "\n" not in str(error)
