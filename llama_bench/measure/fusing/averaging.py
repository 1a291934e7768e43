"""A weighted sum of models' weights, written as it is read, some kilobytes at a time.

Of tensors x_0, x_1, ... with shares that sum to one it computes x_0 + sum_i s_i (x_i - x_0), in
float32 (float64 for what is stored so), and rounds once to the members' own type. So equal members
give themselves to the bit, and relatives, whose differences are small, lose nothing to rounding.
The result is laid out like the first member, file by file, and memory does not depend on the size
of the models. What is the same in all members is copied, whatever it is: Pythia's files hold masks
of its attention, of booleans and of infinities.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from llama_bench.measure.fusing import weight_files
from llama_bench.measure.fusing.weight_files import Stored
from llama_bench.records import Refusal

NUMBERS_AT_ONCE = 2**17  # a block of all that is added stays in a processor's own cache
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

Shares = Callable[[str], Sequence[float]]
"""The members' shares in the tensor of that name."""


def in_every_tensor(weights: Sequence[float]) -> Shares:
    """The same shares whatever the tensor."""
    return lambda _name: weights


def write(folders: list[Path], shares: Shares, target: Path) -> None:
    """A Hugging Face folder with the weighted sum of the models in `folders`, which agree
    (agreement.py); all but the weights is the first's. Raises Refusal (non-finite)."""
    target.mkdir(parents=True)
    files = weight_files.files_of(folders[0])
    copy_all_but_weights(folders[0], target)
    if (folders[0] / weight_files.INDEX).is_file():
        shutil.copyfile(folders[0] / weight_files.INDEX, target / weight_files.INDEX)
    tables = [weight_files.stored(folder) for folder in folders]
    with ExitStack() as stack, torch.inference_mode():
        blocks = Blocks(stack, len(folders))
        for path in files:
            with open(target / path.name, "wb") as out:
                out.write(weight_files.header(path))
                for tensor in weight_files.of_file(path):
                    parts = [table[tensor.name] for table in tables]
                    if tensor.dtype in DTYPES:
                        made = summed(parts, shares(tensor.name), blocks)
                    else:  # equal in all, or they would not agree
                        made = blocks.pieces(0, tensor)
                    for block in made:
                        out.write(memoryview(block.view(torch.uint8).numpy()))


def copy_all_but_weights(source: Path, target: Path, but: tuple[str, ...] = ()) -> None:
    """Config, generation config, tokenizer, and code of the model's own; no file named in `but`."""
    for path in source.iterdir():
        own = path.suffix in (".json", ".jinja", ".model", ".txt", ".py") and path.name not in but
        if own and path.is_file() and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)


class Blocks:
    """One member's tensor after the other, read piece by piece into the same buffers."""

    def __init__(self, stack: ExitStack, members: int):
        self._stack, self._files = stack, {}
        self._buffers = [bytearray(NUMBERS_AT_ONCE * 8) for _ in range(members)]

    def read(self, member: int, tensor: Stored, first: int, bytes_: int) -> torch.Tensor:
        """Numbers from byte `first` of a tensor on; valid until this member is read again."""
        if tensor.path not in self._files:
            opened = open(tensor.path, "rb", buffering=0)  # noqa: SIM115 - closed by the stack
            self._files[tensor.path] = self._stack.enter_context(opened)
        file = self._files[tensor.path]
        file.seek(tensor.begin + first)
        view = memoryview(self._buffers[member])[:bytes_]
        if file.readinto(view) != bytes_:
            raise OSError(f"{tensor.path} ended while it was read")
        return torch.frombuffer(view, dtype=DTYPES.get(tensor.dtype, torch.uint8))

    def pieces(self, member: int, tensor: Stored) -> Iterator[torch.Tensor]:
        """All of a tensor, one piece after the other, as `read` gives them."""
        size = NUMBERS_AT_ONCE * DTYPES.get(tensor.dtype, torch.uint8).itemsize
        for first in range(0, tensor.bytes, size):
            yield self.read(member, tensor, first, min(size, tensor.bytes - first))


def summed(parts: list[Stored], shares: Sequence[float], blocks: Blocks):
    """Blocks of the weighted sum of one tensor's members, in their own type."""
    dtype = DTYPES[parts[0].dtype]
    size = NUMBERS_AT_ONCE * dtype.itemsize
    kept = [place for place, share in enumerate(shares) if share != 0]
    scale = math.fsum(shares)
    scale = 1.0 if abs(scale - 1) < 1e-5 else scale
    for first in range(0, parts[0].bytes, size):
        bytes_ = min(size, parts[0].bytes - first)
        read = [blocks.read(place, parts[place], first, bytes_) for place in kept]
        total = _sum(read, [shares[place] for place in kept], scale)
        if not total.isfinite().all():
            every = [blocks.read(place, part, first, bytes_) for place, part in enumerate(parts)]
            if not _same(every):
                _refuse(total, read, [parts[place] for place in kept])
            total = every[0]
        yield total


def _sum(read: list[torch.Tensor], shares: list[float], scale: float) -> torch.Tensor:
    wide = torch.float64 if read[0].dtype == torch.float64 else torch.float32
    first = read[0].to(wide)
    total = None if scale == 1 else first * scale
    for block, share in zip(read[1:], shares[1:], strict=True):
        if _same([read[0], block]):
            continue  # and a negative zero stays one
        moved = torch.sub(block, first)
        total = first + moved.mul_(share) if total is None else total.add_(moved, alpha=share)
    return read[0] if total is None else total.to(read[0].dtype)


def equal(parts: list[Stored]) -> bool:
    """Whether one tensor, of the same type and shape, is the same in all members, to the bit."""
    with ExitStack() as stack:
        blocks = Blocks(stack, len(parts))
        pieces = [blocks.pieces(place, part) for place, part in enumerate(parts)]
        return all(map(_same, zip(*pieces, strict=True)))


def _same(blocks: Sequence[torch.Tensor]) -> bool:
    """To the bit: zeros of two signs differ, and what is no number can be the same."""
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
    kind = bits[blocks[0].dtype.itemsize]
    return all(torch.equal(block.view(kind), blocks[0].view(kind)) for block in blocks[1:])


def _refuse(total: torch.Tensor, read: list[torch.Tensor], parts: list[Stored]) -> None:
    for block, part in zip(read, parts, strict=True):
        if not block.isfinite().all():
            reason = f"{part.path.parent}: {part.name} holds numbers that are not finite"
            raise Refusal("non-finite", reason)
    reason = f"{parts[0].name}: the weighted sum is beyond what {total.dtype} can hold"
    raise Refusal("non-finite", reason)
