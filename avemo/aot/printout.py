"""What `launch.py compile` prints, unless `--json` asks for the report itself."""

from collections.abc import Iterator
from typing import Any


def text(report: dict[str, Any]) -> str:
    """The report of `aot.compiler.run` as lines to read; sizes in GiB or MiB, per device."""
    sections = (_memory, _work, _roofline, _heaviest, _rest)
    return "\n".join([_head(report), *(line for section in sections for line in section(report)), *_search(report)])


def _size(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 2**30:.2f} GiB" if value >= 2**29 else f"{value / 2**20:.1f} MiB"


def _head(report: dict[str, Any]) -> str:
    batch = ", ".join(f"{n} {stream}" for stream, n in report["batch"].items())
    return f"{report['task']}: {batch} on {report['topology']}, {report['devices']} devices ({report['platform']})"


def _memory(report: dict[str, Any]) -> Iterator[str]:
    if "fits" not in report:
        return
    free = report["hbm_free"]
    room = "" if free is None else f", {_size(abs(free))} {'free' if free >= 0 else 'too much'}"
    yield f"HBM          {'fits' if report['fits'] else 'DOES NOT FIT'}: {_size(report['hbm_used'])}{room}"


def _work(report: dict[str, Any]) -> Iterator[str]:
    if "flops" in report:
        yield f"arithmetic   {report['flops'] / 1e9:.1f} GFLOP per step and device"
    if "hbm_bytes_moved" in report:
        yield (
            f"HBM traffic  {_size(report['hbm_bytes_moved'])}; "
            f"operands in any memory: {_size(report['operand_bytes'])}; "
            f"XLA's bytes accessed: {_size(report['xla']['bytes_accessed'])}"
        )
    for kind, value in report.get("collectives", {}).items():
        moved = f", {_size(value['bytes'])}" if "bytes" in value else ""
        yield f"{kind:<12} {value['count']:.0f}{moved}"
    if report.get("loop_iterations"):
        count = report["loop_iterations"]
        yield f"loops        {count} iterations, one after another: their latency is not in the bound"


def _roofline(report: dict[str, Any]) -> Iterator[str]:
    if "bound" not in report:
        return
    limits = report["bound"]
    times = ", ".join(f"{side} {1e3 * value:.3f} ms" for side, value in limits["seconds"].items())
    yield (
        f"roofline     at most {limits['examples_per_second']:,.0f} examples/s/chip, "
        f"bound by {limits['side']} ({times})"
    )
    yield (
        f"             {report['examples_per_second_without_fast_memory']:,.0f} if all operands lay in HBM; "
        f"{report['xla']['examples_per_second'] or 0:,.0f} by XLA's bytes accessed"
    )


def _heaviest(report: dict[str, Any]) -> Iterator[str]:
    for cost in report.get("top", ()):
        yield (
            f"{cost['hbm_bytes'] / 1e6:10.1f} MB HBM {cost['operand_bytes'] / 1e6:10.1f} MB operands  {cost['name']}  "
            f"{cost['source'][-100:]}"
        )


def _rest(report: dict[str, Any]) -> Iterator[str]:
    if "not_checked" in report:
        yield f"not checked  {', '.join(report['not_checked'])}"
    if "seconds" in report:
        yield "took         " + ", ".join(f"{name} {value} s" for name, value in report["seconds"].items())


def _search(report: dict[str, Any]) -> list[str]:
    if "search" not in report:
        return []
    found = report["search"]
    if found["batch"] is None:
        return ["search       no batch fits"]
    return ["", text({**{k: report[k] for k in ("task", "devices", "topology", "platform")}, **found})]
