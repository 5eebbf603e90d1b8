"""The report on fabricated run folders (`tests/helpers/fabricated.py`); nothing is trained."""

import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from avemo import metrics, report
from avemo.evaluation import estimates
from avemo.report import charts, markup, modalities, traces
from avemo.report.notes import read_notes
from avemo.runs import reader
from helpers import fabricated
from media.errors import UserError


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A fabricated demo with traces; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("demo")
    fabricated.write_demo(folder, frames=300, items=80)
    return folder


@pytest.fixture
def own(demo, tmp_path):
    """A copy of the fabricated demo that a test may change."""
    return pathlib.Path(shutil.copytree(demo, tmp_path / "demo", ignore=shutil.ignore_patterns("report.html")))


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps the elements and the visible text."""

    VOID = frozenset({"meta", "br", "input", "rect", "path"})

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += f" {data}"


def read(folder) -> Page:
    return Page(pathlib.Path(report.write(folder)).read_text(encoding="utf-8"))


def test_page_is_complete_and_self_contained(demo):
    page = read(demo)
    raw = (demo / "report.html").read_text()
    assert len(raw) < 2_000_000
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", raw)
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "img")
        assert not attributes.get("src")
        assert attributes.get("href", "#").startswith("#")
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert {a["href"][1:] for t, a in page.elements if t == "a"} <= set(identifiers)
    for name in fabricated.RUNS:
        assert f"run-{name}" in identifiers
        assert f"Config of {name}" in page.text
        assert f"--workdir={name}" in page.text
    for text in ("no person was recorded", "ceiling", "Training loss", "Confusion of student", "95214fa8bb65787b"):
        assert text in page.text, text
    assert "prepare_affectnet" in page.text
    assert list(demo.glob(".report*")) == []


def test_every_chart_and_table_says_what_it_is(demo):
    page = read(demo)
    count = lambda name: sum(tag == name for tag, _ in page.elements)  # noqa: E731
    assert count("table") == count("caption") > 10
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes.get("aria-hidden") or attributes.get("aria-label")
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    names = {a.get("for") for t, a in page.elements if t == "label"}
    assert names >= {a["id"] for t, a in page.elements if t == "select"}
    assert sum(a.get("class") == "recording" for _, a in page.elements) == 12


def test_writing_again_replaces_the_page(own):
    read(own)
    shutil.rmtree(own / "audio")
    assert "run-audio" not in {a.get("id") for _, a in read(own).elements}


def test_categorical_fusion(tmp_path):
    fabricated.write_demo(tmp_path, corpus="real", items=60)
    page = read(tmp_path)
    assert "Real recordings" in page.text
    assert "macro-F1" in page.text
    assert "Confusion of fusion on dev" in page.text
    assert "ceiling" not in page.text
    assert "Predicted against gold" not in page.text


@pytest.mark.parametrize("names", [["fusion"], ["teacher"], ["audio"], ["fusion_visual", "fusion_audio"]])
def test_missing_runs_are_left_out(tmp_path, names):
    fabricated.write_demo(tmp_path, runs=names, frames=120, items=40)
    page = read(tmp_path)
    shown = {a.get("id") for _, a in page.elements}
    assert {f"run-{name}" for name in fabricated.RUNS} & shown == {f"run-{name}" for name in names}


def test_unfinished_run_without_demo_json(own):
    (own / "demo.json").unlink()
    shutil.rmtree(own / "corpus")
    (own / "student" / "result.json").unlink()
    shutil.rmtree(own / "student" / "predictions")
    lines = (own / "student" / "metrics.jsonl").read_text().splitlines()[:7]
    (own / "student" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 6')  # killed while writing
    page = read(own)
    assert "not finished" in page.text
    assert "is not recorded" in page.text


def test_a_run_folder_itself_can_be_reported(demo):
    page = read(demo / "fusion")
    assert "Predicted against gold" in page.text
    (demo / "fusion" / "report.html").unlink()


def test_hostile_names_are_text(own):
    evil = "<script>alert('x')</script>\"&"
    path = own / "fusion" / "predictions" / "dev.npz"
    arrays = dict(np.load(path))
    arrays["recording"] = np.array([evil + str(i) for i in range(len(arrays["recording"]))])
    np.savez(path, **arrays)
    result = json.loads((own / "teacher" / "result.json").read_text())
    result["class_names"][0] = evil
    result["metrics"]["dev"][evil] = 0.5
    result["data"][evil] = evil
    (own / "teacher" / "result.json").write_text(json.dumps(result))
    with (own / "teacher" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 240, "split": evil, "wall_time": 0, "accuracy": 0.5}) + "\n")
    notes = json.loads((own / "demo.json").read_text())
    notes["stages"] = [{"name": evil, "command": f"python {evil}", "seconds": 1.0, "skipped": False}]
    (own / "demo.json").write_text(json.dumps(notes))
    report.write(own, title=evil)
    raw = (own / "report.html").read_text()
    assert raw.count("<script") == 1
    assert Page(raw).text.count("<script>alert") >= 10


def test_nan_null_and_empty_are_shown_as_absent(own):
    path = own / "fusion" / "predictions" / "dev.npz"
    arrays = dict(np.load(path))
    arrays["prediction"][50] = np.nan  # a diverged model must not look like a good one
    arrays["target"][300:600] = np.nan
    np.savez(path, **arrays)
    result = json.loads((own / "fusion" / "result.json").read_text())
    result["metrics"]["dev"] |= {"ccc_mean": None, "rmse_valence": float("nan")}
    (own / "fusion" / "result.json").write_text(json.dumps(result))
    (own / "audio" / "metrics.jsonl").write_text('{"step": 20, "split": "train", "wall_time": 0, "loss": null}\n')
    page = read(own)
    assert not re.search(r"\bnan\b", (own / "report.html").read_text(), re.IGNORECASE)
    assert "not rated" in page.text
    values = modalities.score(reader.load(own / "fusion"), "dev")
    assert np.isnan(values["concatenated", "mean"].value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "is not a folder"),
        (lambda f: [shutil.rmtree(f / n) for n in fabricated.RUNS], "holds no run"),
        (lambda f: (f / "audio" / "result.json").write_text("{"), "result.json cannot be read"),
        (lambda f: (f / "demo.json").write_text("["), "demo.json cannot be read"),
        (lambda f: (f / "fusion" / "predictions" / "dev.npz").write_bytes(b"PK\x03\x04"), "dev.npz cannot be read"),
    ],
)
def test_bad_folders_are_one_line(own, spoil, message):
    spoil(own)
    with pytest.raises(UserError, match=message) as caught:
        report.write(own)
    assert "\n" not in str(caught.value)
    assert not (own / "report.html").exists()


def test_scores_are_those_of_the_metrics(demo):
    run = reader.load(demo / "fusion")
    shown = estimates.of_traces(run.traces("dev"))
    rows = run.traces("dev")
    expected = metrics.trace_scores([r.prediction for r in rows], [r.target for r in rows])
    for dimension in ("valence", "arousal", "mean"):
        for convention, prefix in (("concatenated", "ccc"), ("per_recording", "ccc_recording")):
            found = shown[convention, dimension]
            assert found.value == pytest.approx(expected[f"{prefix}_{dimension}"], rel=1e-6)
            assert found.low <= found.value <= found.high
            assert found.high - found.low > 0
    label, probability, groups = reader.load(demo / "teacher").classes("dev")
    expected = metrics.class_scores(label, probability)
    for (_, name), found in estimates.of_classes(label, probability, groups).items():
        assert found.value == pytest.approx(expected[name])
        assert found.low <= found.value <= found.high


def test_difference_is_paired_only_over_the_same_recordings(demo):
    both, audio = (estimates.of_traces(reader.load(demo / n).traces("dev")) for n in ("fusion", "fusion_audio"))
    key = ("concatenated", "mean")
    gain = estimates.difference(both[key], audio[key])
    assert gain.low < gain.value < gain.high
    same = estimates.difference(both[key], both[key])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    fewer = estimates.of_traces(reader.load(demo / "fusion_audio").traces("dev")[1:])
    assert np.isnan(estimates.difference(both[key], fewer[key]).low)


def test_a_split_that_could_not_be_scored_is_named(own):
    """A run whose test split has no labels leaves no score, predictions without gold, and the reason."""
    path = own / "fusion/predictions/test.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "mask": np.zeros_like(arrays["mask"])})
    result = json.loads((own / "fusion/result.json").read_text())
    result["metrics"].pop("test", None)
    (own / "fusion/result.json").write_text(json.dumps({**result, "unscored": {"test": "no frame has a label"}}))
    page = read(own)
    assert "Not scored on test: no frame has a label" in page.text  # the run's card
    assert "Not scored on test (fusion): no frame has a label" in page.text  # the comparison


def test_the_best_of_each_column_is_bold(demo):
    rows = re.findall(r"<tr>.*?</tr>", modalities.section(reader.load_all(demo), read_notes(demo)))
    bold = [row for row in rows if "<strong>" in row]
    assert len(bold) == 4  # two splits and two conventions, in all of which the fabricated fusion is the best by far
    assert all("audio + visual" in row for row in bold)


def test_modality_is_read_from_the_config(own):
    path = own / "fusion_audio" / "config.json"
    (own / "fusion_audio").rename(own / "second")
    config = json.loads((own / "second" / path.name).read_text())
    assert reader.load(own / "second").modality == "audio"
    (own / "second" / path.name).write_text(json.dumps({**config, "model": {"fusion": "gmu"}}))
    assert reader.load(own / "second").modality == "both"
    assert reader.load(own / "teacher").modality is None


def test_long_traces_are_thinned(tmp_path):
    fabricated.write_run(tmp_path, "fusion", frames=9000)
    assert pathlib.Path(report.write(tmp_path)).stat().st_size < 2_000_000
    assert "Lines show at least every" in (tmp_path / "report.html").read_text()


def test_lines_break_where_there_is_no_value_and_read_back():
    x, y = np.array([0.0, 10, 20, 30, 40]), np.array([5.0, 3, np.nan, 9, 9])
    drawn = charts.path(x, y)
    stretches = [[int(n) for n in re.findall(r"-?\d+", part)] for part in drawn.split("M")[1:]]
    points = [np.cumsum(np.reshape(numbers, (-1, 2)), 0)[1:].tolist() for numbers in stretches]
    assert points == [[[0, 5], [10, 3]], [[30, 9], [40, 9]]]


def test_absent_spans():
    absent = np.array([1, 0, 0, 1, 1, 0, 1], bool)
    found = list(traces.spans(absent, np.arange(7) * 0.5))
    np.testing.assert_allclose(found, [(-0.25, 0.25), (1.25, 2.25), (2.75, 3.25)])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 240), (0.013, 0.0131), (-3, 40_000), (2, 2)])
def test_ticks_are_few_round_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)


def test_formats():
    assert markup.number(-0.12345) == "\N{MINUS SIGN}0.123"
    assert markup.number(1234567) == "1,234,567"
    assert markup.number(None) == markup.number(float("inf")) == markup.number(True) == markup.ABSENT
    assert markup.percent(0.6134) == "61.3\N{NO-BREAK SPACE}%"
    assert [markup.duration(s) for s in (8.42, 200, 7500)] == ["8.4 s", "3 min 20 s", "2 h 05 min"]
    assert [markup.count(n) for n in (950, 166_640, 15_556_008)] == ["950", "167 k", "15.6 M"]
    assert markup.metric_label("ccc_recording_valence") == "CCC valence, mean of recordings"
    assert markup.metric_label("triplet_accuracy_one_class") == "triplet accuracy, one class"
    assert markup.metric_label("something_new") == "something new"
    order = ["ece", "rmse_valence", "ccc_recording_mean", "ccc_arousal", "ccc_valence", "ccc_mean"]
    assert sorted(order, key=markup.metric_rank) == [
        "ccc_mean", "ccc_valence", "ccc_arousal", "ccc_recording_mean", "rmse_valence", "ece",
    ]  # fmt: skip


def test_trace_png(demo, tmp_path):
    path = pathlib.Path(report.trace_png(demo / "fusion", "dev", tmp_path / "new" / "trace.png", "dev_1"))
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.frombuffer(path.read_bytes()[16:24], ">u4").tolist() == [1800, 920]
    again = pathlib.Path(report.trace_png(demo / "fusion", "dev", tmp_path / "median.png"))
    assert again.read_bytes() != path.read_bytes()  # the median is another recording
    with pytest.raises(UserError, match=r"no recording 'x'.*dev_1"):
        report.trace_png(demo / "fusion", "dev", tmp_path / "x.png", "x")
    with pytest.raises(UserError, match="no predictions of split 'holdout'"):
        report.trace_png(demo / "fusion", "holdout", tmp_path / "x.png")
    with pytest.raises(UserError, match="has no traces"):
        report.trace_png(demo / "teacher", "dev", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
