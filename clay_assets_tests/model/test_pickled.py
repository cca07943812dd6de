"""Hostile archives: reading a checkpoint's pickle imports, calls and changes nothing.

Each trap creates a file if it is run, as opening it with PyTorch or `pickle` shows.
"""

import builtins
import collections
import functools
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Never

import pytest
import torch

from clay_assets_tests.checkpoints import encoder_state_v15, write_checkpoint
from clay_model import CheckpointError, read_checkpoint
from clay_model.archive import read_archive
from clay_model.pickled import Inert, read_pickle


class Calls:
    """An object whose pickle calls a function when it is opened."""

    def __init__(self, function: Callable[..., object], *arguments: object, state: object = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def traps(mark: Path) -> dict[str, object]:
    """Objects that create the file `mark` when their pickle is opened, each in another way."""
    write = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, f"touch {mark}"),
        "builtins.eval": Calls(builtins.eval, write),
        "builtins.exec": Calls(builtins.exec, write),
        "subprocess": Calls(subprocess.run, ["touch", str(mark)]),
        "pathlib": Calls(Path.touch, mark),
        "nested in a list of a dictionary": [{"a": ({"b": Calls(builtins.eval, write)},)}],
        "as an argument": Calls(collections.OrderedDict, [("a", Calls(builtins.eval, write))]),
        "as a state": Calls(collections.OrderedDict, state={"a": Calls(builtins.eval, write)}),
        "partial": Calls(functools.partial(os.system, f"touch {mark}")),
        "map in list": Calls(list, Calls(map, builtins.eval, [write])),
    }


NAMES = list(traps(Path("mark")))


def no_tensor(*_: object) -> torch.Tensor:
    raise AssertionError("no tensor is in this pickle")


def open_with_pickle(path: Path) -> None:
    """Open a checkpoint and run its code."""
    torch.load(path, weights_only=False)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights of Clay v1.5."""
    return encoder_state_v15("custom")


@pytest.mark.parametrize("where", ["hyper_parameters", "callbacks", "optimizer_states"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_object_next_to_the_weights_does_nothing(
    tmp_path: Path, state: dict[str, torch.Tensor], name: str, where: str
) -> None:
    mark = tmp_path / "mark"
    content = {"state_dict": state, where: {"trap": traps(mark)[name]}}
    path = write_checkpoint(tmp_path / "hostile.ckpt", content)
    assert read_checkpoint(path).model_size == "custom-64x2"
    assert not mark.exists()
    open_with_pickle(path)
    assert mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_object_in_the_place_of_a_weight_is_refused_and_does_nothing(
    tmp_path: Path, state: dict[str, torch.Tensor], name: str
) -> None:
    mark = tmp_path / "mark"
    content = {"state_dict": state | {"model.encoder.cls_token": traps(mark)[name]}}
    path = write_checkpoint(tmp_path / "hostile.ckpt", content)
    with pytest.raises(CheckpointError, match=r"missing model\.encoder\.cls_token"):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_object_as_the_whole_checkpoint_is_refused_and_does_nothing(
    tmp_path: Path, name: str
) -> None:
    mark = tmp_path / "mark"
    path = write_checkpoint(tmp_path / "hostile.ckpt", traps(mark)[name])
    with pytest.raises(CheckpointError, match=r"hostile.ckpt holds (a \w+|no `state_dict`)"):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", NAMES)
def test_hostile_object_in_any_protocol_does_nothing(tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / "mark"
    data = pickle.dumps({"trap": traps(mark)[name]}, protocol)
    read_pickle(data, no_tensor)
    assert not mark.exists()
    pickle.loads(data)  # noqa: S301 - shows that the trap works
    assert mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "os.system"])
def test_instructions_of_the_first_protocols_that_call_do_nothing(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    command = f"open({str(mark)!r}, 'w').close()" if name == "builtins.eval" else f"touch {mark}"
    module, function = name.split(".")
    instance = f"(S{command!r}\ni{module}\n{function}\n.".encode()  # INST
    of_class = f"(c{module}\n{function}\nS{command!r}\no.".encode()  # OBJ
    for data in (instance, of_class):
        read_pickle(data, no_tensor)
        assert not mark.exists()
        pickle.loads(data)  # noqa: S301 - shows that the trap works
        mark.unlink()


IMPORTED = """
import sys, zipfile
from clay_model.archive import read_archive
from pathlib import Path
read_archive(Path(sys.argv[1]))
print([name for name in ("antigravity", "tkinter", "this") if name in sys.modules])
"""


def test_module_that_a_pickle_names_is_not_imported(tmp_path: Path) -> None:
    pickled = b"\x80\x02}(X\x01\x00\x00\x00acantigravity\ngeohash\nX\x01\x00\x00\x00bcthis\ns\nu."
    path = tmp_path / "importing.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    done = subprocess.run([sys.executable, "-c", IMPORTED, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_function_that_a_pickle_names_keeps_its_defaults() -> None:
    function = torch._utils._rebuild_tensor_v2
    state = (None, {"__defaults__": (1, 2, 3)})
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + pickle.dumps(state, 2)[2:-1] + b"b."
    before = function.__defaults__
    read_pickle(data, no_tensor)
    assert function.__defaults__ == before


def test_extension_code_is_refused() -> None:
    for data in (b"\x80\x02\x82\x01.", b"\x80\x02\x83\x01\x00.", b"\x80\x02\x84\x01\x00\x00\x00."):
        with pytest.raises(ValueError, match="needs no extension codes"):
            read_pickle(data, no_tensor)


def test_keys_that_would_take_forever_to_hash_are_not_hashed() -> None:
    nested: tuple[object, ...] = ()
    for _ in range(100):
        nested = (nested, nested)
    pickled = pickle.dumps(nested, 4)[2:-1]  # short, because of the memo
    for data in (b"}" + pickled + b"Ns.", b"}(" + pickled + b"Nu.", b"(" + pickled + b"Nd."):
        got = read_pickle(b"\x80\x04" + data, no_tensor)
        assert isinstance(got, dict)
        assert [type(key) for key in got] == [Inert]
    for data in (b"\x8f(" + pickled + b"\x90.", b"(" + pickled + b"\x91."):
        assert isinstance(read_pickle(b"\x80\x04" + data, no_tensor), Inert)


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00K\x01\x85K\x00\x85tR"
)
"""Instructions that put a tensor of one number on the stack."""


class Bait(torch.Tensor):
    """A tensor that fails the test if it is iterated or added to."""

    def __iter__(self) -> Never:
        pytest.fail("the tensor was iterated")

    def add(self, *_: object, **__: object) -> Never:
        """Fail the test."""
        pytest.fail("the tensor was added to")


@pytest.mark.parametrize("rest", [b"(NN\x90.", b"cos\nsystem\n" + TENSOR + b"R."], ids=["ADDITEMS", "REDUCE"])
def test_tensor_is_neither_added_to_nor_iterated_over(rest: bytes) -> None:
    """With stride 0 a tensor can claim any number of elements, so that either would exhaust the memory."""
    data = b"\x80\x04" + TENSOR + rest
    with suppress(TypeError):
        read_pickle(data, lambda *_: torch.ones(1).as_subclass(Bait))


def test_bytearray_takes_no_more_memory_than_the_pickle_has() -> None:
    assert read_pickle(pickle.dumps(bytearray(b"abc"), 5), no_tensor) == b"abc"
    tracemalloc.start()
    with pytest.raises(EOFError):
        read_pickle(b"\x80\x05\x96" + (1 << 28).to_bytes(8, "little") + b"abc", no_tensor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# Accepted content


def test_tensors_next_to_one_of_an_unknown_storage_are_read() -> None:
    data = b"\x80\x04" + TENSOR.replace(b"FloatStorage", b"QInt8Storage") + b"."
    got = read_pickle(data, no_tensor)
    assert isinstance(got, Inert)
    assert got.name == "torch._utils._rebuild_tensor_v2"


PLAIN: dict[object, Any] = {
    "numbers": [0, 1, -1, 255, 65_536, -(2**40), 2**100, 1.5, float("inf")],
    "text": ["", "ä", "x" * 300, b"bytes", b"b" * 300],
    "others": [None, True, False],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {"a": {"b": [{"c": ({},)}]}},
    3: "a number as key",
    "ordered": collections.OrderedDict(a=1, b=2),
}
SHARED = ["the same list"]
PLAIN["twice"] = [SHARED, SHARED]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_equals_that_of_pickle(protocol: int) -> None:
    data = pickle.dumps(PLAIN, protocol)
    if protocol == 2:  # where bytes are made by a call
        data = pickle.dumps(PLAIN | {"text": ["", "ä"]}, protocol)
    got = read_pickle(data, no_tensor)
    assert got == pickle.loads(data)  # noqa: S301 - made by this test
    assert isinstance(got, dict)
    assert got["twice"][0] is got["twice"][1]


class Settings(dict[str, Any]):
    """A configuration object, such as libraries store with the weights."""


def test_object_like_a_dictionary_keeps_its_items_and_its_name() -> None:
    settings = Settings(lr=0.1, sizes=[1, 2])
    settings.secret = "state"  # type: ignore[attr-defined]  # noqa: S105 - a word
    got = read_pickle(pickle.dumps({"hp": settings}), no_tensor)
    assert isinstance(got, dict)
    placeholder = got["hp"]
    assert isinstance(placeholder, Inert)
    assert placeholder.name == f"{__name__}.Settings"
    assert placeholder.items == {"lr": 0.1, "sizes": [1, 2]}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).view(2, 3, 4),
        torch.arange(24.0).view(4, 6).T,
        torch.arange(24.0)[3:17:2],
        torch.arange(5, dtype=torch.int64),
        torch.tensor(2.5),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.empty(0, 3),
        torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
    ],
    ids=["cube", "transposed", "strided", "int64", "number", "bool", "complex", "empty", "parameter"],
)
def test_tensor_equals_that_of_pytorch(tmp_path: Path, tensor: torch.Tensor) -> None:
    got = read_archive(write_checkpoint(tmp_path / "tensor.ckpt", {"tensor": tensor}))["tensor"]
    assert got.dtype == tensor.dtype
    assert got.stride() == tensor.stride()
    assert torch.equal(got, tensor.detach())


def test_storage_that_two_tensors_share_is_shared(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    got = read_archive(write_checkpoint(tmp_path / "shared.ckpt", {"a": whole, "b": whole[4:6]}))
    assert got["b"].data_ptr() == got["a"].data_ptr() + 4 * 4


@pytest.mark.parametrize(
    ("size", "stride", "first"),
    [((100,), (1,), 0), ((4,), (1,), 8), ((2,), (100,), 0), ((4,), (1,), -4)],
    ids=["too long", "begins too late", "strides beyond", "begins before"],
)
def test_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], first: int
) -> None:
    class Outside:
        def __reduce__(self) -> tuple[Any, ...]:
            storage = torch.arange(10.0).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, first, size, stride, False, {})

    path = write_checkpoint(tmp_path / "outside.ckpt", {"tensor": Outside()})
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)


def test_storage_shorter_than_the_pickle_declares_is_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"tensor": torch.arange(10.0)}, whole)
    path = tmp_path / "short.ckpt"
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(path, "w") as cut:
        for part in given.infolist():
            data = given.read(part)
            cut.writestr(part.filename, data[:20] if "/data/" in part.filename else data)
    with pytest.raises(CheckpointError, match=r"data/0 has 20 bytes for 10 numbers"):
        read_checkpoint(path)


def test_numbers_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/byteorder", "big" if sys.byteorder == "little" else "little")
    with pytest.raises(CheckpointError, match=r"its numbers are (big|little)-endian, this machine's are"):
        read_checkpoint(path)
