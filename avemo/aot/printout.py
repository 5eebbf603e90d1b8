"""What `launch.py compile` prints, unless `--json` asks for the report itself."""

from typing import Any


def text(report: dict[str, Any]) -> str:
    """The report of `aot.run` as lines to read; sizes in GiB or MiB, for one device."""

    def size(value: float | None) -> str:
        return (
            "unknown" if value is None else f"{value / 2**30:.2f} GiB" if value >= 2**29 else f"{value / 2**20:.1f} MiB"
        )

    batch = ", ".join(f"{n} {part}" for part, n in report["batch"].items())
    lines = [f"{report['task']}: {batch} on {report['topology']}, {report['devices']} devices ({report['platform']})"]
    if "fits" in report:
        free = report["hbm_free"]
        room = "" if free is None else f", {size(abs(free))} {'free' if free >= 0 else 'too much'}"
        lines.append(f"HBM          {'fits' if report['fits'] else 'DOES NOT FIT'}: {size(report['hbm_used'])}{room}")
    if "flops" in report:
        lines.append(f"arithmetic   {report['flops'] / 1e9:.1f} GFLOP a step and device")
    if "hbm_bytes_moved" in report:
        lines.append(
            f"HBM traffic  {size(report['hbm_bytes_moved'])}; operands in any memory: {size(report['operand_bytes'])}; "
            f"XLA's bytes accessed: {size(report['xla']['bytes_accessed'])}"
        )
    for kind, value in report.get("collectives", {}).items():
        moved = f", {size(value['bytes'])}" if "bytes" in value else ""
        lines.append(f"{kind:<12} {value['count']:.0f}{moved}")
    if report.get("loop_iterations"):
        lines.append(
            f"loops        {report['loop_iterations']} iterations, one after another: their latency is not in the bound"
        )
    if "bound" in report:
        limits = report["bound"]
        times = ", ".join(f"{side} {1e3 * value:.3f} ms" for side, value in limits["seconds"].items())
        lines.append(
            f"roofline     at most {limits['examples_per_second']:,.0f} examples/s/chip, "
            f"bound by {limits['side']} ({times})"
        )
        lines.append(
            f"             {report['examples_per_second_without_fast_memory']:,.0f} if all operands lay in HBM; "
            f"{report['xla']['examples_per_second'] or 0:,.0f} by XLA's bytes accessed"
        )
    for cost in report.get("top", ()):
        lines.append(
            f"{cost['hbm_bytes'] / 1e6:10.1f} MB HBM {cost['operand_bytes'] / 1e6:10.1f} MB operands  {cost['name']}  "
            f"{cost['source'][-100:]}"
        )
    if "not_checked" in report:
        lines.append(f"not checked  {', '.join(report['not_checked'])}")
    if "seconds" in report:
        lines.append("took         " + ", ".join(f"{name} {value} s" for name, value in report["seconds"].items()))
    if "search" in report:
        found = report["search"]
        if found["batch"] is None:
            lines.append("search       no batch fits")
        else:
            lines += ["", text({**{k: report[k] for k in ("task", "devices", "topology", "platform")}, **found})]
    return "\n".join(lines)
