"""What a compiled TPU program moves: HBM traffic, collectives and loop iterations, read from its optimised HLO text.

XLA's own `bytes accessed` includes what stays in a TPU core's fast memory (layouts marked `S(1)`), counts copies
between the two memories at both ends, and counts a loop's body once however often it runs. This module counts HBM and
the operations' own operands separately, and a body once per iteration. Arrays count with their layout in memory, whose
two minor axes are padded to tiles: a batch of 96 in the minor axis takes the space of 128.
"""

import collections
import dataclasses
import math
import re

_ITEM = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_ITEM |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
# These name or order buffers; nothing moves.
_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "after-all"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of HLO: the type of its result as text, its operation, its operands by name, and its attributes."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    text: str
    root: bool


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Cost:
    """One instruction of a program and what it moves in all its executions.

    Attributes:
      name, opcode: as in the HLO text.
      source: where in the model it comes from, as XLA recorded it; "" if the compiler added it.
      hbm_bytes: bytes read from and written to HBM.
      operand_bytes: all bytes read and written, fast memory included; 0 for a copy between the two memories.
      times: how often it runs.
    """

    name: str
    opcode: str
    source: str
    hbm_bytes: float
    operand_bytes: float
    times: int


@dataclasses.dataclass
class Traffic:
    """Totals of one execution on one device.

    Attributes:
      hbm_bytes: bytes read from and written to HBM.
      operand_bytes: bytes read and written by the operations themselves, in HBM or fast memory: the traffic of a chip
        without fast memory. Copies between the two memories do not count.
      collectives: by kind, how many run and the bytes of their operands.
      iterations: of all loops; they run one after another, which no roofline sees.
      costs: by instruction.
    """

    collectives: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    iterations: int = 0
    costs: list[Cost] = dataclasses.field(default_factory=list)

    @property
    def hbm_bytes(self) -> float:
        """Sum over the instructions."""
        return sum(cost.hbm_bytes for cost in self.costs)

    @property
    def operand_bytes(self) -> float:
        """Sum over the instructions."""
        return sum(cost.operand_bytes for cost in self.costs)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Splits HLO text into computations. Returns them by name, and the name of the entry."""
    computations: dict[str, Computation] = {}
    current: Computation | None = None
    entry = ""
    for line in text.splitlines():
        if line.endswith("{") and (line.startswith(("%", "ENTRY"))):
            name = _NAME.findall(line)[0]
            current = computations.setdefault(name, {})
            entry = name if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    return computations, entry


def _instruction(line: str) -> Instruction:
    head, _, rest = line.strip().partition(" = ")
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    kind, call = rest[:end], rest[end:].lstrip()
    opcode, _, _ = call.partition("(")
    close = _closing(call, len(opcode))
    return Instruction(
        name=_NAME.findall(head)[0],
        type=kind,
        opcode=opcode,
        operands=tuple(_NAME.findall(call[len(opcode) : close])),
        attributes=call[close:],
        text=call[len(opcode) + 1 : close - 1],
        root=head.startswith("ROOT"),
    )


def _closing(text: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if not depth:
            return index + 1
    raise ValueError(f"unbalanced HLO: {text[:80]}")


def leaves(kind: str, hbm_only: bool = True) -> list[float]:
    """Bytes of each array of a type, padded to tiles; 0 for an array outside HBM, if only HBM counts."""
    sizes = []
    for dtype, dims, layout in _SHAPE.findall(kind):
        lengths = [int(d) for d in dims.split(",") if d]
        order, _, rest = layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        if tile and lengths:
            minor_first = [int(axis) for axis in order.split(",")]
            for axis, step in zip(minor_first, reversed([int(n) for n in tile.group(1).split(",")]), strict=False):
                lengths[axis] = -(-lengths[axis] // step) * step
        size = math.prod(lengths) * _ITEM.get(dtype, 1)
        sizes.append(0.0 if hbm_only and re.search(r"S\([1-9]", layout) else float(size))
    return sizes


def traffic(text: str) -> Traffic:
    """Adds up the entry computation, with each loop's body once per iteration."""
    computations, entry = parse(text)
    total = Traffic(collectives=collections.defaultdict(lambda: {"count": 0, "bytes": 0.0}))
    _add(computations, entry, 1, total)
    total.collectives = dict(total.collectives)
    return total


def _add(computations: dict[str, Computation], name: str, times: int, total: Traffic) -> None:
    body = computations[name]
    for instruction in body.values():
        called = dict(re.findall(r"(body|condition|to_apply|calls)=%([\w.\-]+)", instruction.attributes))
        if instruction.opcode == "while":
            trips = _trips(computations[called["condition"]], instruction)
            total.iterations += times * trips
            _add(computations, called["body"], times * trips, total)
        elif instruction.opcode == "call":
            _add(computations, called["to_apply"], times, total)
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            total.collectives[kind]["count"] += times
            sent = sum(sum(leaves(body[o].type, hbm_only=False)) for o in instruction.operands)
            total.collectives[kind]["bytes"] += times * sent
        if instruction.opcode not in _FREE:
            fused = computations.get(called.get("calls", "")) if instruction.opcode == "fusion" else None
            source = re.search(r'op_name="([^"]*)"', instruction.attributes)
            copies = instruction.opcode.endswith(("-start", "-done")) and kind.removesuffix("-done") not in COLLECTIVES
            total.costs.append(
                Cost(
                    name=instruction.name,
                    opcode=instruction.opcode,
                    source=source.group(1) if source else "",
                    hbm_bytes=times * _moved(instruction, body, fused),
                    operand_bytes=0.0 if copies else times * _moved(instruction, body, fused, hbm_only=False),
                    times=times,
                )
            )


def _trips(condition: Computation, loop: Instruction) -> int:
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known.group(1))
    # `jax.lax.scan` counts an int32 from 0 to the length, which is the condition's only large constant.
    constants = [int(i.text) for i in condition.values() if i.opcode == "constant" and re.fullmatch(r"\d+", i.text)]
    return max(constants, default=1)


def _moved(instruction: Instruction, body: Computation, fused: Computation | None, hbm_only: bool = True) -> float:
    """Bytes that one instruction reads and writes. A slice counts as the slice, an update in place as the update."""
    read = [sum(leaves(body[o].type, hbm_only)) for o in instruction.operands]
    written = leaves(instruction.type, hbm_only)
    if 'custom_call_target="ConcatBitcast"' in instruction.attributes:  # the slices are already adjacent
        return 0.0
    if instruction.opcode == "slice-start":  # its type: the operands, the slice, a flag
        return min(read[0], leaves(instruction.type, hbm_only=False)[1])
    if instruction.opcode.endswith("-start"):  # its `-done` counts the result
        return sum(read)
    if instruction.opcode.endswith("-done"):
        return sum(written)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return sum(written) + min(read[0], _size(instruction))
    if instruction.opcode == "dynamic-update-slice":
        return read[1] + min(sum(written), _size(body[instruction.operands[1]]))
    if fused is not None:
        read, written = _through_fusion(fused, read, written)
    return sum(read) + sum(written)


def _size(instruction: Instruction) -> float:
    return sum(leaves(instruction.type, hbm_only=False))


def _through_fusion(fused: Computation, read: list[float], written: list[float]) -> tuple[list[float], list[float]]:
    """Reduces sizes to what moves: operands of a fusion that are only sliced, and results updated in place."""

    def source(name: str) -> str:
        while fused[name].opcode == "bitcast":
            name = fused[name].operands[0]
        return name

    users = collections.defaultdict(list)
    for instruction in fused.values():
        if instruction.opcode != "bitcast":
            for position, operand in enumerate(instruction.operands):
                users[source(operand)].append((instruction, position))
    read = list(read)
    for name, instruction in fused.items():
        if instruction.opcode != "parameter" or not users[name]:
            continue
        number = int(instruction.text)
        sliced = 0.0
        for user, position in users[name]:
            if position == 0 and user.opcode in ("dynamic-slice", "slice"):
                sliced += _size(user)
            elif not (position == 0 and user.opcode == "dynamic-update-slice"):
                break
        else:
            read[number] = min(read[number], sliced)
    root = next(i for i in fused.values() if i.root)
    results = [source(o) for o in root.operands] if root.opcode == "tuple" else [source(root.name)]
    written = list(written)
    if len(results) == len(written):
        for index, name in enumerate(results):
            if fused[name].opcode == "dynamic-update-slice":
                written[index] = min(written[index], _size(fused[fused[name].operands[1]]))
    return read, written
