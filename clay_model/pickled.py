"""Reads a pickle as data: imports and calls nothing that it names.

A pickle is a program for a small stack machine. Some of its instructions import a function, call it, or
change an object. `read_pickle` runs the machine of Python's standard library with those instructions
replaced: text, numbers and plain containers are built as usual, tensors are made from the archive, and an
`Inert` stands for any other object. A checkpoint with some library's configuration object can thus be read,
and a hostile checkpoint has no effect.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""PyTorch's name of a storage → the dtype of its numbers."""


@dataclass(frozen=True)
class Storage:
    """The numbers in one part of the archive.

    Attributes:
        dtype: Their type.
        key: Name of the part.
        count: Number of numbers.
    """

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False)
class Inert:
    """Stands for a class, a function, or an object that only a call could make.

    Attributes:
        name: Name of the class or function.
        items: Entries that the pickle sets, if the object is dictionary-like. Other content is dropped.
    """

    name: str
    items: dict[object, object] = field(default_factory=dict, repr=False)

    def __call__(self, *_: object) -> "Inert":
        """Return a stand-in for the result of the call."""
        return Inert(self.name)

    def extend(self, items: object) -> None:
        """Drop the items that the pickle puts into a list-like object."""

    append = extend


MakeTensor = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], Tensor]
"""Storage, index of the first number in it, sizes, strides → tensor."""


def read_pickle(data: bytes, make_tensor: MakeTensor) -> object:
    """Return the object that a pickle written by PyTorch describes.

    Args:
        data: The pickle.
        make_tensor: Called for each tensor.

    Returns:
        Numbers, text, None, lists, tuples, dictionaries, tensors, and an `Inert` for anything else.

    Raises:
        Exception: Of any class, if the pickle is damaged.
    """
    return _Reader(data, make_tensor).load()


class _Reader(pickle._Unpickler):  # in Python, because the one in C always obeys BUILD
    """The stack machine; REDUCE, INST and OBJ call what `find_class` returned, so nothing from the pickle."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes, make_tensor: MakeTensor) -> None:
        super().__init__(io.BytesIO(data))
        self._make_tensor = make_tensor

    def find_class(self, module: str, name: str) -> object:
        """Return a stand-in for an import: a dtype, one of three known functions, or an `Inert`."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        match f"{module}.{name}":
            case "collections.OrderedDict" as ordered:
                return lambda *arguments: Inert(ordered) if arguments else {}
            case "torch._utils._rebuild_parameter":
                return lambda tensor, *_: tensor
            case "torch._utils._rebuild_tensor_v2" as rebuild:
                return lambda *arguments: (
                    self._make_tensor(*arguments[:4]) if isinstance(arguments[0], Storage) else Inert(rebuild)
                )
            case other:
                return Inert(other)

    def persistent_load(self, identity: object) -> object:
        """Return the storage that a tensor refers to."""
        match identity:
            case ("storage", torch.dtype() as dtype, str(key), _, int(count)):
                return Storage(dtype, key, count)
        return Inert("a storage of unknown numbers")

    def _call(self) -> None:  # REDUCE, NEWOBJ
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):  # a tensor of stride 0 would yield numbers without end
            raise TypeError(f"a call with a {type(arguments).__name__}")
        self.stack.append(function(*arguments))

    def _call_with_keywords(self) -> None:  # NEWOBJ_EX
        self.stack.pop()
        self._call()

    def _drop_state(self) -> None:  # BUILD would call `__setstate__` or set attributes, even a function's
        self.stack.pop()

    def _set_items(self) -> None:  # SETITEMS
        self._fill(self.pop_mark())

    def _set_item(self) -> None:  # SETITEM
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _dict(self) -> None:  # DICT
        items = self.pop_mark()
        self.stack.append({})
        self._fill(items)

    def _fill(self, items: list[object]) -> None:
        """Put alternating keys and values into the dictionary on the stack."""
        target = self.stack[-1].items if isinstance(self.stack[-1], Inert) else self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError(f"keys and values put into a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take exponential time.
            plain = key is None or isinstance(key, str | bytes | int | float)
            target[key if plain else Inert(type(key).__name__)] = value

    def _set(self) -> None:  # EMPTY_SET; its members would be hashed
        self.stack.append(Inert("set"))

    def _frozenset(self) -> None:  # FROZENSET
        self.pop_mark()
        self.stack.append(Inert("frozenset"))

    def _drop_members(self) -> None:  # ADDITEMS would call `add`, which a tensor has, too
        self.pop_mark()

    def _refuse(self) -> None:  # an extension code stands for an object of this process
        raise ValueError("a checkpoint needs no extension codes or buffers")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.NEWOBJ_EX[0]: _call_with_keywords,
        pickle.BUILD[0]: _drop_state,
        pickle.SETITEMS[0]: _set_items,
        pickle.SETITEM[0]: _set_item,
        pickle.DICT[0]: _dict,
        pickle.EMPTY_SET[0]: _set,
        pickle.FROZENSET[0]: _frozenset,
        pickle.ADDITEMS[0]: _drop_members,
        # As bytes: BYTEARRAY8 would allocate the length that the pickle states, however short the pickle is.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        **dict.fromkeys(b"\x82\x83\x84\x97\x98", _refuse),  # EXT1, EXT2, EXT4, NEXT_BUFFER, READONLY_BUFFER
    }
