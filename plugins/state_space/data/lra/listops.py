"""ListOps (Nangia & Bowman 2018) as in the Long Range Arena: nested lists of MIN, MAX, MED and SM over digits."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from plugins.state_space.data.cache import cached
from plugins.state_space.data.loading import SequenceData, Sequences

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
# 0 pads, 1 is unknown, 2 ends a sequence; then the fifteen tokens
TOKENS = {token: i + 3 for i, token in enumerate([*map(str, range(10)), *OPERATORS, "X"])}
VOCABULARY = len(TOKENS) + 3
END, CLOSE = 2, TOKENS["X"]
VALUE_PROBABILITY = 0.75
VERSION = 1


class _TooLong(Exception):
    pass


class Example(NamedTuple):
    """Tokens with the closing bracket written X and an end token, and the value of the whole list."""

    tokens: bytes
    value: int


def generate_listops(
    generator: random.Random, max_depth: int = 10, max_args: int = 10, min_length: int = 500, max_length: int = 2000
) -> Example:
    """One random list with min_length < leaves + 2·operators < max_length, by rejection.

    At every node below depth ``max_depth`` a digit stands with probability 0.75, else an operator with 2 … max_args
    arguments; SM is the sum modulo 10, MED the floor of the median.
    """
    while True:
        tokens: list[int] = []
        try:
            value, length = _tree(generator, 1, max_depth, max_args, max_length, tokens)
        except _TooLong:
            continue
        if min_length < length < max_length:
            return Example(bytes([*tokens, END]), value)


def _tree(
    generator: random.Random, depth: int, max_depth: int, max_args: int, max_length: int, tokens: list[int]
) -> tuple[int, int]:
    if depth >= max_depth or generator.random() < VALUE_PROBABILITY:
        value = generator.randrange(10)
        tokens.append(TOKENS["0"] + value)
        return value, 1
    place = len(tokens)
    tokens.append(0)
    length, values = 2, []
    for _ in range(generator.randint(2, max_args)):
        value, size = _tree(generator, depth + 1, max_depth, max_args, max_length, tokens)
        values.append(value)
        length += size
        if length >= max_length or len(tokens) >= max_length:
            # too long already, whatever follows: rejected without drawing the rest
            raise _TooLong
    operator = generator.choice(OPERATORS)
    tokens[place] = TOKENS[operator]
    tokens.append(CLOSE)
    return evaluate(operator, values), length


def evaluate(operator: str, values: list[int]) -> int:
    """Value of one operator on digits."""
    if operator == "[MIN":
        return min(values)
    if operator == "[MAX":
        return max(values)
    if operator == "[SM":
        return sum(values) % 10
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def parse(tokens: bytes) -> int:
    """Value of a token sequence, computed from the tokens alone.

    Raises:
        ValueError: the brackets do not match.
    """
    names = {code: name for name, code in TOKENS.items()}
    stack: list[tuple[str, list[int]]] = [("", [])]
    for code in tokens:
        if code == END:
            break
        name = names[code]
        if name in OPERATORS:
            stack.append((name, []))
        elif name == "X":
            if len(stack) < 2:
                raise ValueError("a bracket closes that was never opened")
            operator, values = stack.pop()
            stack[-1][1].append(evaluate(operator, values))
        else:
            stack[-1][1].append(int(name))
    if len(stack) != 1 or len(stack[0][1]) != 1:
        raise ValueError("a bracket was never closed")
    return stack[0][1][0]


class ListOpsData(SequenceData):
    """Unique random lists, generated once and cached.

    Args:
        batch_size, workers, fast: as ``SequenceData``.
        train_size, val_size, test_size: numbers of lists (96,000, 2,000 and 2,000 in the arena).
        max_depth, max_args, min_length, max_length: of ``generate_listops``.
        generation_seed: of the lists.
    """

    def __init__(
        self,
        batch_size: int = 50,
        train_size: int = 96_000,
        val_size: int = 2_000,
        test_size: int = 2_000,
        max_depth: int = 10,
        max_args: int = 10,
        min_length: int = 500,
        max_length: int = 2000,
        generation_seed: int = 0,
        workers: int = 0,
        fast: bool = False,
    ) -> None:
        super().__init__(batch_size, workers, fast)
        for name, size in (("train_size", train_size), ("val_size", val_size), ("test_size", test_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if max_depth < 1 or max_args < 2 or min_length + 1 >= max_length:
            raise ValueError(
                "max_depth >= 1, max_args >= 2 and min_length + 1 < max_length are needed, not "
                f"{max_depth}, {max_args}, {min_length} and {max_length}"
            )
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        if fast:
            self.sizes = {"train": 16, "val": 8, "test": 8}
            min_length, max_length = min(min_length, 20), min(max_length, 100)
        self.shape = {
            "max_depth": max_depth,
            "max_args": max_args,
            "min_length": min_length,
            "max_length": max_length,
        }
        self.generation_seed = generation_seed

    def prepare_data(self) -> None:
        self._load()

    def setup(self, stage: str | None = None) -> None:
        if self.sets:
            return
        stored = self._load()
        lists = torch.split(stored["tokens"], stored["lengths"].tolist())
        start = 0
        for name, size in self.sizes.items():
            chosen: list[Tensor] = [tokens.long() for tokens in lists[start : start + size]]
            self.sets[name] = Sequences(chosen, stored["values"][start : start + size])
            start += size

    def _load(self) -> dict[str, Tensor]:
        settings = {**self.shape, "sizes": self.sizes, "seed": self.generation_seed, "version": VERSION}
        return cached("listops", settings, self._generate)

    def _generate(self) -> dict[str, Tensor]:
        generator = random.Random(self.generation_seed)
        examples: dict[bytes, int] = {}
        total = sum(self.sizes.values())
        with tqdm(total=total, desc="generating ListOps", unit="list") as bar:
            while len(examples) < total:
                example = generate_listops(generator, **self.shape)
                if example.tokens not in examples:
                    examples[example.tokens] = example.value
                    bar.update()
        joined = torch.frombuffer(bytearray(b"".join(examples)), dtype=torch.uint8)
        lengths = torch.tensor([len(tokens) for tokens in examples])
        return {"tokens": joined, "lengths": lengths, "values": torch.tensor(list(examples.values()))}
