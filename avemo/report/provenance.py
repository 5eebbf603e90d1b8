"""The section on provenance: versions, hardware, fingerprints and configs."""

import json
from collections.abc import Sequence

from avemo.report import markup
from avemo.report.markup import escape, tag
from avemo.runs.reader import Run


def section(runs: Sequence[Run]) -> str:
    """The whole section, or "" if no run has a result or a config."""
    tables = _environment(runs) + _fingerprints(runs)
    configs = "".join(
        markup.details(
            f"Config of {escape(run.name)}",
            tag("pre", tag("code", escape(json.dumps(run.config, indent=2, sort_keys=True, ensure_ascii=False)))),
        )
        for run in runs
        if run.config
    )
    if not tables and not configs:
        return ""
    content = f'<div class="tables">{tables}</div>{configs}'
    return tag("section", f"<h2>Environment and configs</h2>{content}", id="provenance")


def _environment(runs: Sequence[Run]) -> str:
    """Versions and hardware; a value that differs between runs is followed by their names."""
    rows = []
    environments = {run.name: run.result.get("environment") or {} for run in runs}
    for key in dict.fromkeys(k for e in environments.values() for k in e):
        by_value: dict[str, list[str]] = {}
        for name, environment in environments.items():
            if key in environment:
                by_value.setdefault(str(environment[key]), []).append(name)
        text = [
            escape(value) + (f" <small>({escape(', '.join(names))})</small>" if len(by_value) > 1 else "")
            for value, names in by_value.items()
        ]
        rows.append([escape(key.replace("_", " ")), "<br>".join(text)])
    return markup.table("Environment", ["what", "value"], rows) if rows else ""


def _fingerprints(runs: Sequence[Run]) -> str:
    rows = [
        [escape(run.name), kind, escape(role), tag("code", escape(value))]
        for run in runs
        for kind in ("data", "weights")
        for role, value in (run.result.get(kind) or {}).items()
    ]
    caption = "Fingerprints (first digits of SHA-256) of the data and of the initial weights"
    return markup.table(caption, ["run", "kind", "role", "fingerprint"], rows) if rows else ""
