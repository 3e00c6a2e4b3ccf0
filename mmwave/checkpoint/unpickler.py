"""A restricted interpreter of pickles, which makes descriptions and counts their memory."""

import io
import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar, cast

import numpy as np

from mmwave.errors import printable

from .nodes import AsksForMoreError, Name, Node, checked_key, described
from .stand_ins import Fields

_MAX_LINE = 1 << 16
_SMALL_READ = 1 << 16
_MAX_OPCODES_LISTED = 1_000_000

# The memory that reading may use besides the tensors: what is counted is at least what is used.
_SPARE_MEMORY = 160 << 20
_SPARE_DECLARED = 1 << 20
_COST = 64  # bytes that an opcode uses at most: an integer and its place on the stack
_COSTS = {
    pickle.BINPERSID: 256,
    # Containers, and what is noted of each while nodes are replaced.
    **dict.fromkeys((pickle.EMPTY_DICT, pickle.EMPTY_SET), 512),
    **dict.fromkeys(
        (pickle.EMPTY_LIST, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 320
    ),
    **dict.fromkeys((pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE), 128),
    pickle.MARK: 96,
    # A tensor uses so much, its numbers aside.
    **dict.fromkeys((pickle.REDUCE, pickle.NEWOBJ), 1024),
}
_COST_PER_ITEM = 64
_COST_OF_TUPLE_KEY = 128
_MAX_EQUAL_HASHES = 64  # of tuples, whose hashes can be made to collide


class TooMuchError(ValueError):
    """A file declares more than its size allows."""


class Stream:
    """A binary file from which no more is read than it still holds."""

    def __init__(self, file: io.BufferedReader | io.BytesIO) -> None:
        self.file = file
        self.tell, self.seek = file.tell, file.seek
        start = file.tell()
        self.size = file.seek(0, 2)
        file.seek(start)

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes.

        Raises:
            EOFError: where there are fewer.
        """
        # Asking for a length out of a damaged file would set so much memory aside.
        if count > _SMALL_READ and count > self.size - self.tell():
            raise EOFError(f'it ends before {count} bytes that it announces')
        content = self.file.read(count)
        if len(content) < count:
            raise EOFError('it ends too early')
        return content

    def readline(self) -> bytes:
        """Return the next line."""
        line = self.file.readline(_MAX_LINE)
        if not line.endswith(b'\n'):
            raise EOFError('a line of it does not end')
        return line

    def readinto(self, target: memoryview) -> None:
        """Fill ``target``."""
        if self.file.readinto(target) < len(target):
            raise EOFError('it ends too early')


class _Skimmed(Stream):
    """A file whose long texts and arrays are skipped: zeros replace them."""

    def read(self, count: int) -> bytes:
        if _SMALL_READ < count <= self.size - self.tell():
            self.seek(count, io.SEEK_CUR)
            return bytes(count)
        return super().read(count)


_KEPT = (
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.PROTO, pickle.MARK),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.SHORT_BINBYTES, pickle.SHORT_BINUNICODE),
    *(pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.POP, pickle.POP_MARK),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.MEMOIZE),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT),
)
"""Opcodes of protocols 2 to 5 that need no restriction."""


class _Unpickler(pickle._Unpickler):
    """Make plain data and nodes of a pickle.

    It is the interpreter written in Python, since that keeps its memo in a dict: in the one written
    in C a memo index of four bytes in the file sets gigabytes aside. Classes and functions of a
    pickle are never looked up, only names in a table, and only nodes accept a state.

    Args:
        stream: where the pickle begins.
        names: what stands for the names that it may ask for.
        size: of the file in bytes.
        persistent: returns the object of a persistent id; None where there are none.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code[0]: pickle._Unpickler.dispatch[code[0]] for code in _KEPT
    }

    def __init__(
        self,
        stream: Stream,
        names: Mapping[str, Any],
        size: int,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(stream, encoding='utf-8')
        self.read, self.readline, self.stream = stream.read, stream.readline, stream
        self.names = names
        self.persistent = persistent
        self.max_memory = self.memory = 2 * size + _SPARE_MEMORY
        self.max_declared = self.declared = 2 * size + _SPARE_DECLARED
        self.hashes: dict[int, int] = {}

    def load(self) -> Any:
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.append = self.stack.append
        stop = pickle.STOP[0]
        read, dispatch = self.read, self.dispatch
        while (code := read(1)[0]) != stop:
            if code not in dispatch:
                raise AsksForMoreError([_opcode(code)])
            self.memory -= _COST_OF[code]
            if self.memory < 0:
                self.charge(0)
            dispatch[code](self)
        return self.stack.pop()

    def charge(self, cost: int) -> None:
        """Count memory; raise where it is out of proportion to the file."""
        self.memory -= cost
        if self.memory < 0:
            raise TooMuchError(
                f'its data takes more than {self.max_memory} bytes of memory, which is out of '
                'proportion to its size'
            )

    def find_class(self, module: str, name: str) -> Any:
        wanted = _modern_name(module, name)
        if wanted not in self.names:
            raise AsksForMoreError([wanted])
        return self.names[wanted]

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise AsksForMoreError(['a persistent id'])
        return self.persistent(pid)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.metastack.pop()
        self.append = self.stack.append
        return items

    def called(self, function: Any, arguments: Any) -> Any:
        """Return the node of a call."""
        if not isinstance(function, Name) or function.call is None or type(arguments) is not tuple:
            raise AsksForMoreError([f'a call of {described(function)}'])
        self.charge(sum(map(_cost_of_copy, arguments)))
        for argument in arguments:
            if isinstance(argument, list | tuple):  # of keys, or of pairs of a key and a value
                for item in argument:
                    self.note_hash(item)
                    if isinstance(item, list | tuple) and len(item) == 2:
                        self.note_hash(item[0])
        result = function.call(*arguments)
        self.declare(result)
        return result

    def declare(self, result: Any) -> None:
        """Count the bytes of a tensor or an array, which is made later."""
        if isinstance(result, Node) and result.nbytes > 0:
            self.declared -= result.nbytes
            if self.declared < 0:
                raise TooMuchError(
                    f'it declares tensors and arrays of more than {self.max_declared} bytes, '
                    'which is more than its size allows'
                )

    def key(self, key: Any) -> Any:
        """Return a key of a dict that has been checked."""
        checked = checked_key(key)
        self.note_hash(key)
        return checked

    def note_hash(self, key: Any) -> None:
        """Count the hashes of tuples that may become keys; raise where too many are equal."""
        # The hash of a tuple of tuples may take exponential time; such a one is no key.
        if type(key) is not tuple or any(isinstance(item, tuple | list | dict) for item in key):
            return
        self.charge(_COST_OF_TUPLE_KEY)
        try:
            found = hash(key)
        except TypeError:  # it cannot be a key
            return
        self.hashes[found] = count = self.hashes.get(found, 0) + 1
        if count > _MAX_EQUAL_HASHES:
            raise TooMuchError(f'{count} of its keys have one hash')

    def load_frame(self) -> None:
        # A frame only helps reading ahead; the stream is read without.
        if int.from_bytes(self.read(8), 'little') > self.stream.size:
            raise EOFError('it ends before a frame that it announces')

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.called(self.stack[-1], arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Node):
            raise AsksForMoreError([f'attributes of {described(target)}'])
        target.set_state(state)
        self.declare(target)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self.extend(items)

    def load_append(self) -> None:
        item = self.stack.pop()
        self.extend([item])

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top of the stack."""
        if type(self.stack[-1]) is not list:
            raise AsksForMoreError([f'items of {described(self.stack[-1])}'])
        self.stack[-1].extend(items)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.update(items)

    def load_setitem(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.update(items)

    def update(self, items: list[Any]) -> None:
        """Set entries of the dict on top of the stack; keys and values alternate."""
        target = self.stack[-1]
        if type(target) is not dict and type(target) is not Fields:
            raise AsksForMoreError([f'entries of {described(target)}'])
        for key, value in zip(items[::2], items[1::2], strict=True):
            dict.__setitem__(target, key if type(key) is str else self.key(key), value)

    def load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise AsksForMoreError([f'items of {described(self.stack[-1])}'])
        self.charge(_COST_PER_ITEM * len(items))
        self.stack[-1].update(map(self.key, items))

    def counted(self, digits: int) -> bytes:
        """Return bytes that are preceded by their length."""
        content = self.read(int.from_bytes(self.read(digits), 'little'))
        self.charge(len(content))
        return content

    def text(self, digits: int) -> str:
        """Return a text that is preceded by its length in bytes."""
        content = self.counted(digits)
        if not content.isascii():
            # All characters of a text use as many bytes as its widest, 1, 2 or 4.
            widest = int(np.frombuffer(content, np.uint8).max())
            self.charge((0 if widest < 0xC4 else 1 if widest < 0xF0 else 3) * len(content))
        return str(content, 'utf-8', 'surrogatepass')

    dispatch |= {
        pickle.FRAME[0]: load_frame,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.BINBYTES[0]: lambda self: self.append(self.counted(4)),
        pickle.BINBYTES8[0]: lambda self: self.append(self.counted(8)),
        pickle.BYTEARRAY8[0]: lambda self: self.append(bytearray(self.counted(8))),
        pickle.BINUNICODE[0]: lambda self: self.append(self.text(4)),
        pickle.BINUNICODE8[0]: lambda self: self.append(self.text(8)),
    }


_COST_OF = [_COST] * 256
for _code, _cost in _COSTS.items():
    _COST_OF[_code[0]] = _cost


def _cost_of_copy(argument: Any) -> int:
    if isinstance(argument, str | bytes):
        return len(argument)
    if isinstance(argument, list | tuple | dict):
        return _COST_PER_ITEM * len(argument)
    return 0


def unpickled(
    stream: Stream,
    names: Mapping[str, Any],
    size: int,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the plain data and nodes of the next pickle of ``stream``.

    Args:
        stream: a file.
        names: what stands for the names that the pickle may ask for.
        size: of the whole file, which may be larger than the stream.
        persistent: returns the object of a persistent id.

    Raises:
        AsksForMoreError: naming all that it asks for and may not.
        Exception: any other, where it is damaged.
    """
    start = stream.tell()
    try:
        return _Unpickler(stream, names, size, persistent).load()
    except TooMuchError:
        raise
    except Exception as error:
        stream.seek(start)
        wanted = _names_asked_for(_Skimmed(stream.file)).difference(names)
        if wanted:
            raise AsksForMoreError(sorted(wanted)) from error
        raise


def _names_asked_for(stream: Stream) -> set[str]:
    """Return the dotted names that a pickle asks for, found without running it."""
    found: set[str] = set()
    # The last two texts; whether the last opcode made a text; the texts in the memo; its length.
    texts, fresh, memo, length = ['', ''], False, dict[int, str](), 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
            if count > _MAX_OPCODES_LISTED:
                break
            if opcode.name in ('GLOBAL', 'INST'):
                found.add(_modern_name(*str(argument).split(' ', 1)))
            elif opcode.name == 'STACK_GLOBAL' and all(texts):
                found.add(_modern_name(*texts))
            elif opcode.name == 'MEMOIZE' or 'PUT' in opcode.name:
                if fresh:
                    memo[length if argument is None else argument] = texts[1]
                length += 1
            text = argument if 'UNICODE' in opcode.name else None
            if 'GET' in opcode.name:
                text = memo.get(int(argument or 0))
            fresh = text is not None
            if fresh:
                texts = [texts[1], printable(text, _MAX_LINE)]
    except Exception:  # damaged from here on, which is for the caller to say
        return found
    return found


def _opcode(code: int) -> str:
    known = [opcode.name for opcode in pickletools.opcodes if opcode.code == chr(code)]
    if not known:
        raise ValueError(f'{code} is no opcode of a pickle')
    return f'the pickle opcode {known[0]}'


def _modern_name(module: str, name: str) -> str:
    # Protocols up to 2 spell modules as Python 2 did: __builtin__ and the like.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f'{module}.{name}'
