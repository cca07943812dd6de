"""A pickle read as data: nothing that it names is imported, called or made.

A pickle is a program for a small stack machine, and its instructions to build objects call whatever function
it names. This machine makes numbers, text and plain containers itself, and has tensors made from where they
are in the archive. It puts an `Inert` in the place of any other object and swallows the object's arguments
and state, so a checkpoint that carries a configuration object of some library can be read, and a hostile one
does nothing. Which file the pickle is from, and what its content means, is not decided here.

The instructions are those of Python's `pickletools`, which takes a pickle apart without running it.
"""

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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
"""PyTorch's name of a storage → the numbers in it."""

_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Instructions whose argument is the value."""


@dataclass(frozen=True)
class Storage:
    """Numbers that lie in a part of the archive.

    Attributes:
        dtype: What they are.
        key: The part's name.
        count: How many.
    """

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False)
class Inert:
    """Stands for an object that would have taken code to make, or for the class or function itself.

    Attributes:
        name: Of the class or function.
        items: What the pickle puts into it as into a dictionary.
    """

    name: str
    items: dict[object, object] = field(default_factory=dict, repr=False)


MakeTensor = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], Tensor]
"""A storage, the place of the first number in it, sizes and strides → the tensor."""


def read_pickle(data: bytes, make_tensor: MakeTensor) -> object:
    """The object that a pickle of PyTorch's describes.

    Args:
        data: The pickle.
        make_tensor: Is called for each tensor.

    Returns:
        Numbers, text, None, lists, tuples, dictionaries, tensors, and `Inert` for anything else.

    Raises:
        Exception: Of any class, if the pickle is damaged.
    """
    machine = _Machine(make_tensor)
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name == "STOP":
            break
        machine.step(instruction.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the marks on it and the memo, with what each instruction does to them."""

    def __init__(self, make_tensor: MakeTensor) -> None:
        self.stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._make_tensor = make_tensor

    def step(self, name: str, argument: object) -> None:
        """Carry out one instruction."""
        stack, pop, push = self.stack, self.stack.pop, self.stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in _VALUES:
                push(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "MARK":
                self._marks.append(len(stack))
            case "POP_MARK":
                self._above_mark()
            case "POP":
                if self._marks and self._marks[-1] == len(stack):
                    self._marks.pop()
                else:
                    pop()
            case "DUP":
                push(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[int(str(argument))] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self._memo[int(str(argument))])
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                push(tuple(self._above_mark()))
            case "EMPTY_LIST":
                push([])
            case "LIST":
                push(self._above_mark())
            case "APPEND":
                _extend(stack[-2], [pop()])
            case "APPENDS":
                items = self._above_mark()
                _extend(stack[-1], items)
            case "EMPTY_DICT":
                push({})
            case "DICT":
                items = self._above_mark()
                push({})
                _fill(stack[-1], items)
            case "SETITEM":
                value, key = pop(), pop()
                _fill(stack[-1], [key, value])
            case "SETITEMS":
                items = self._above_mark()
                _fill(stack[-1], items)
            case "EMPTY_SET":
                push(Inert("set"))
            case "FROZENSET":
                self._above_mark()
                push(Inert("frozenset"))
            case "ADDITEMS":
                self._above_mark()
            case _:
                self._step_with_object(name, argument)

    def _step_with_object(self, name: str, argument: object) -> None:
        """Carry out an instruction that would import, call or change something."""
        pop, push = self.stack.pop, self.stack.append
        match name:
            case "GLOBAL":
                push(_named(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                qualified, module = pop(), pop()
                push(_named(module, qualified))
            case "REDUCE" | "NEWOBJ":
                arguments, what = pop(), pop()
                push(self._made(what, arguments))
            case "NEWOBJ_EX":
                _, arguments, what = pop(), pop(), pop()
                push(self._made(what, arguments))
            case "INST":
                arguments = tuple(self._above_mark())
                push(self._made(_named(*str(argument).split(" ", 1)), arguments))
            case "OBJ":
                what, *rest = self._above_mark()
                push(self._made(what, tuple(rest)))
            case "BUILD":
                pop()  # the object's state, beyond what it holds as a container
            case "BINPERSID":
                push(_storage(pop()))
            case _:
                raise ValueError(f"a checkpoint has no use for the instruction {name}")

    def _above_mark(self) -> list[object]:
        """Take everything above the last mark, and the mark."""
        mark = self._marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _made(self, what: object, arguments: object) -> object:
        """What the call would have made: one of three things that are known, or an `Inert`."""
        if not isinstance(what, Inert) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of {type(what).__name__} with {type(arguments).__name__}")
        if what.name == "collections.OrderedDict" and not arguments:
            return {}
        if what.name == "torch._utils._rebuild_parameter":
            return arguments[0]
        if what.name == "torch._utils._rebuild_tensor_v2" and isinstance(arguments[0], Storage):
            return self._make_tensor(*arguments[:4])
        return Inert(what.name)


def _named(module: object, qualified: object) -> object:
    """What the pickle would have imported: a storage's numbers, or an `Inert` of that name."""
    if module == "torch" and qualified in _STORAGES:
        return _STORAGES[str(qualified)]
    return Inert(f"{module}.{qualified}")


def _storage(identity: object) -> object:
    match identity:
        case ("storage", torch.dtype() as dtype, str(key), _, int(count)):
            return Storage(dtype, key, count)
    return Inert("a storage of unknown numbers")


def _extend(target: object, items: Iterable[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Inert):
        raise ValueError(f"items put into a {type(target).__name__}")


def _fill(target: object, items: list[object]) -> None:
    """Put keys and values, in turns, into a dictionary or an object that is like one."""
    into = target.items if isinstance(target, Inert) else target
    if not isinstance(into, dict) or len(items) % 2:
        raise ValueError(f"{len(items)} keys and values put into a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        plain = key is None or isinstance(key, str | bytes | int | float)
        into[key if plain else Inert(type(key).__name__)] = value
