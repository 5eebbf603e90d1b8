"""A run opened for reading: its log, config and scores as tables, its predictions and weights on demand."""

import dataclasses
import html
import json
from typing import Any

import pandas as pd
from etils import epath

from avemo.data import mixture, shards
from avemo.report import page
from avemo.report.notes import read_notes
from avemo.runs import checkpoints, installed, paths, reader
from media.errors import UserError


@dataclasses.dataclass(frozen=True)
class AnalysisRun(reader.Run):
    """A run folder with its tables; predictions and weights are read on demand."""

    def curves(self, split: str | None = None) -> pd.DataFrame:
        """What training logged: one row per step and split, one column per value."""
        table = pd.DataFrame(self.history)
        if table.empty:
            return table
        table = table if split is None else table[table["split"] == split].dropna(axis=1, how="all")
        return table.set_index(["split", "step"]).sort_index()

    def fields(self) -> pd.DataFrame:
        """The config: one row per field, by its dotted name."""
        rows = pd.json_normalize(self.config).iloc[0]
        return rows.rename("value").rename_axis("field").to_frame()

    def metrics(self) -> pd.DataFrame:
        """Final scores: one row per metric, one column per split."""
        return pd.DataFrame(self.scores)

    def variables(self, which: str = "best") -> dict[str, Any]:
        """Weights on the host, whatever devices wrote them; `which` is "best" or "latest"."""
        return checkpoints.load(self.folder, which)[2]

    def split(self, name: str | None = None) -> str:
        """`name`; by default "dev", or else the first split that has predictions.

        Raises:
          UserError: the run has no predictions of that split.
        """
        name = name or next(iter(self.splits), None)
        if name not in self.splits:
            raise UserError(
                f"{self.folder} has no predictions of split {name!r} (it has: {', '.join(self.splits) or 'none'})."
            )
        return str(name)

    def data(self, role: str) -> str:
        """Returns the data folder of a role ("faces", "triplets", "clips", "features"), where it is now.

        For a fusion run "clips" are those that its features were extracted from.

        Raises:
          UserError: the run has no such data, or the data cannot be found.
        """
        data = self.config.get("data", {})
        folder = paths.find_data(data.get(role) or "", self.folder)
        if not folder and role == "clips" and data.get("features"):
            features = shards.find_dataset(self.data("features"))
            card = features / "extract.json"
            folder = paths.find(json.loads(card.read_text()).get("clips") or "", features) if card.exists() else ""
        if not folder or not all(epath.Path(part.folder).exists() for part in mixture.parse(folder)):
            raise UserError(
                f"the {role} of {self.folder} are not at {folder or 'any place it names'}: they moved. What you asked "
                "for needs them; scores, traces and weights do not."
            )
        return str(folder)


def load(folder: str | epath.Path) -> AnalysisRun:
    """Opens a run folder or a zip file of one, local or gs://, finished or not, or a released run by its name.

    Needs neither flags nor an accelerator.

    Raises:
      UserError: the folder is not a run folder, or one of its files is broken.
    """
    run = reader.load(installed.find(str(folder)))
    return AnalysisRun(**{field.name: getattr(run, field.name) for field in dataclasses.fields(run)})


def browse(*runs: reader.Run, height: int = 720) -> Any:
    """Shows the report of these runs inside a notebook: curves, and traces against gold.

    Raises:
      UserError: IPython is not installed.
    """
    try:
        from IPython.display import HTML
    except ImportError as error:
        raise UserError("browse shows a page in a notebook: `pip install ipython`, or use avemo.report.") from error
    text = page.render(list(runs), read_notes(runs[0].folder.parent))
    frame = (
        f'<iframe srcdoc="{html.escape(text)}" title="Report" style="width:100%;height:{height}px;border:0"></iframe>'
    )
    return HTML(frame)
