"""Reports on runs: `write` makes one page that opens from disk, `trace_png` a picture of one trace."""

from avemo.report.page import write
from avemo.report.trace_picture import trace_png

__all__ = ["trace_png", "write"]
