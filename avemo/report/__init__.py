"""Reports on runs: `write` makes one page that opens from disk, `trace_png` a picture of one trace."""

from avemo.report.figure import trace_png
from avemo.report.page import write

__all__ = ["trace_png", "write"]
