"""Every format of table gives the same features, and what cannot be used is refused in one line."""

import dataclasses
import sys
import unicodedata

import numpy as np
import pytest

from data_prep import names
from data_prep.corpora.features import Features, Options
from data_prep.features import align, presets, reading
from media.errors import UserError

RATE, COUNT = 10, 20
TIMES = np.arange(COUNT) / RATE
VALUES = np.random.default_rng(0).normal(size=(COUNT, 2)).round(4)
LABELS = np.stack([np.linspace(-0.5, 0.5, COUNT), np.linspace(0.9, -0.9, COUNT)], axis=1).round(4)


def text(header, columns, delimiter=",", end="\n"):
    """A table as text; `columns` are arrays or lists of cells."""
    rows = zip(*columns, strict=True)
    return end.join([delimiter.join(header), *(delimiter.join(map(str, row)) for row in rows)]) + end


LABELLED = text(["time", "valence", "arousal"], [TIMES, *LABELS.T])


def plain(delimiter=",", time=TIMES, values=VALUES, header=("time", "a", "b")):
    return text(header, [time, *values.T], delimiter)


@pytest.fixture
def make(tmp_path):
    """Writes `FOLDER/NAME` files, labels of the recording r1 unless given, and returns the corpus."""

    def written(files, **options):
        files = {"labels/r1.csv": LABELLED, **files}  # None: no such file
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            elif content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        given = {"visual": "v", "labels": "labels", "split": "train", **options}
        chosen = Options(**given)
        chosen.check()
        return Features(tmp_path, chosen)

    return written


def only(corpus, name="r1"):
    """The record of one recording."""
    item = next(item for item in corpus.items() if item.key == name)
    (record,) = corpus.process(item)
    return record


ARFF = "@relation x\n@attribute name string\n@attribute frameTime numeric\n@attribute 'a' numeric\n@attribute b real\n"
ARFF += "@attribute class numeric\n\n@data\n\n" + "".join(
    f"'r1',{t},{a},{b},?\n" for t, (a, b) in zip(TIMES, VALUES, strict=True)
)
STARTS = [f"0 days 00:00:{max(0.0, t - 0.05):09.6f}" for t in TIMES]
ENDS = [f"0 days 00:00:{t + 0.05 if t else 0.0:09.6f}" for t in TIMES]
FRAMES = np.arange(COUNT)


@pytest.mark.parametrize(
    ("file", "content", "spec"),
    [
        ("r1.csv", plain(), "v"),
        ("r1.csv", plain(";"), "v"),
        ("r1.tsv", plain("\t"), "v"),
        ("r1.csv", plain(";").replace(".", ","), "v"),
        ("r1.csv", plain().encode("utf-16"), "v"),
        ("r1.csv", b"\xef\xbb\xbf" + plain().encode(), "v"),
        ("r1.csv", "sep=;\n" + plain(";"), "v"),
        ("r1.csv", plain().replace("\n", "\r\n"), "v"),
        ("r1.csv", plain().split("\n", 1)[1], "v"),  # no header: times are seen to be times
        ("r1.csv", "".join(f"'r1';{line}\n" for line in plain(";").splitlines()[1:]), "v"),
        ("r1.csv", text(["name", "timestamp", "a", "b"], [["'r1'"] * COUNT, TIMES, *VALUES.T], ";"), "v"),
        ("r1.csv", plain(time=TIMES * 1000, header=("time (ms)", "a", "b")), "v"),
        ("r1.csv", plain(time=TIMES * 1000), "v:unit=ms"),
        ("r1.csv", plain(time=FRAMES, header=("frame", "a", "b")), "v:rate=10"),
        ("r1.csv", text(["a", "b"], VALUES.T), "v:rate=10"),
        ("r1.csv", text(["a", "b"], VALUES.T), "v"),  # one row per label
        ("r1.csv", text(["start", "end", "a", "b"], [STARTS, ENDS, *VALUES.T]), "v"),
        ("r1.csv", plain(time=TIMES[::-1], values=VALUES[::-1]), "v:sort=yes"),
        ("r1.arff", ARFF, "v"),
        ("r1.npy", lambda path: np.save(path, VALUES), "v:rate=10"),
        ("r1.npz", lambda path: np.savez(path, features=VALUES, time=TIMES), "v"),
        ("../all.npz", lambda path: np.savez(path, r1=VALUES, r2=VALUES), "all.npz:rate=10"),
        ("../all.csv", text(["file", "time", "a", "b"], [["x/r1.wav"] * 20 + ["x/r2.wav"] * 20]
                            + [np.tile(c, 2) for c in (TIMES, *VALUES.T)]), "all.csv"),
        ("r1/of.csv", plain(), "v/{name}/of.csv"),
        ("x_r1_4.0.csv", plain(), "v/*_{name}_4.0.csv"),
    ],
)  # fmt: skip
def test_every_format_gives_the_features(make, file, content, spec):
    corpus = make({f"v/{file}": content}, visual=spec, max_missing=1.0)
    record = only(corpus)
    assert corpus.features()["visual"].shape == (None, 2)
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)
    assert record["visual_mask"].all()
    np.testing.assert_allclose(record["targets"], LABELS, atol=1e-6)


def test_parquet(make):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(path):
        columns = {"name": [1] * 20 + [2] * 20, "time": np.tile(TIMES, 2)}
        columns |= {"a": np.tile(VALUES[:, 0], 2), "b": np.tile(VALUES[:, 1], 2)}
        parquet.write_table(pyarrow.table(columns), path)

    files = {"labels/r1.csv": None, "labels/1.csv": LABELLED, "all.parquet": write}
    record = only(make(files, visual="all.parquet"), "1")
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)


@pytest.mark.parametrize(("suffix", "package"), [("h5", "h5py"), ("parquet", "pyarrow")])
def test_a_package_that_is_not_installed_is_named(make, monkeypatch, suffix, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"r1\.{suffix}: reading .* needs {package}: pip install"):
        only(make({f"v/r1.{suffix}": b"x"}))


class Hdf5(dict):
    """What h5py gives, as far as it is used: groups are mappings, data sets are arrays."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.parametrize(
    "tree",
    [
        {"features": VALUES, "time": TIMES},
        {"r1": {"features": VALUES, "intervals": np.stack([TIMES - 0.05, TIMES + 0.05], axis=1)}},
        {"emotion": {"data": {"r1": {"features": VALUES, "time": TIMES}}}},  # CMU's .csd
    ],
)
def test_hdf5(make, monkeypatch, tree):
    import types

    def grown(node):
        return {k: grown(v) if isinstance(v, dict) else v for k, v in node.items()}

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=lambda path, mode: Hdf5(grown(tree))))
    of_all = "features" not in tree
    record = only(make({"v.h5" if of_all else "v/r1.h5": b""}, visual="v.h5" if of_all else "v"))
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)


OPENFACE = ["frame", " face_id", " timestamp", " confidence", " success", " AU01_r", " AU02_r", " AU01_c"]


def test_openface_masks_what_it_is_not_sure_of(make):
    sure, seen = np.full(COUNT, 0.98), np.ones(COUNT, int)
    sure[3], seen[5] = 0.2, 0
    columns = [FRAMES + 1, np.zeros(COUNT, int), TIMES, sure, seen, *VALUES.T, np.ones(COUNT)]
    corpus = make({"v/r1.csv": text(OPENFACE, columns, ",")}, visual="v:cols=AU*_r")
    record = only(corpus)
    assert corpus.columns["visual"] == ["AU01_r", "AU02_r"]
    np.testing.assert_array_equal(np.flatnonzero(~record["visual_mask"]), [3, 5])
    assert not record["visual"][[3, 5]].any()
    np.testing.assert_allclose(record["visual"][4], VALUES[4], atol=1e-6)


def test_py_feat_takes_the_surest_face(make):
    header = ["", "FaceRectX", "FaceScore", "AU01", "AU02", "input", "frame", "approx_time"]
    twice = np.repeat(FRAMES, 2)
    score = np.where(np.arange(2 * COUNT) % 2 == 0, 0.6, 0.9)
    values = np.repeat(VALUES, 2, axis=0) + np.where(score < 0.7, 5.0, 0.0)[:, None]
    columns = [np.arange(40), twice, score, *values.T.round(4), ["clip.mp4"] * 40, twice, ["00:00"] * 40]
    record = only(make({"v/r1.csv": text(header, columns)}, visual="v:rate=10:cols=AU*"))
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-4)


def test_gaps_and_cells_without_a_number_are_masked(make):
    cells = VALUES.astype(object)
    cells[2, 0], cells[4, 1], cells[6] = "nan", "", [0, 0]
    lines = plain(values=cells).splitlines()
    del lines[11:13]  # rows 10 and 11
    record = only(make({"v/r1.csv": "\n".join(lines) + "\n"}, visual="v:zeros=yes"))
    np.testing.assert_array_equal(np.flatnonzero(~record["visual_mask"]), [2, 4, 6, 10, 11])


def test_rates_differ_and_streams_are_joined(make):
    fine = np.arange(200) / 100
    files = {
        "a/r1.csv": text(["time", "x"], [fine, fine]),
        "b/r1.csv": text(["time", "y"], [fine[::5], 2 * fine[::5]]),
        "v/r1.csv": plain(),
    }
    corpus = make(files, audio="a:align=mean+b:align=nearest", visual="v,a:offset=0.5:name=late")
    record = only(corpus)
    assert {s["name"]: s["dim"] for s in corpus.card()["streams"]} == {"audio": 2, "v": 2, "late": 1}
    np.testing.assert_allclose(record["audio"][1:, 0], TIMES[1:] - 0.005, atol=1e-6)  # ten rows from t - 0.05 on
    np.testing.assert_allclose(record["audio"][:, 1], 2 * TIMES, atol=1e-6)
    np.testing.assert_array_equal(record["late_mask"], TIMES > 0.45)
    np.testing.assert_allclose(record["late"][6], 0.1, atol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_rows_of_several_recordings_may_be_mixed(make, encoding):
    header, columns = ["name", "time", "a", "b"], [np.tile(["r1", "r2"], COUNT), np.repeat(TIMES, 2)]
    columns += list(np.repeat(VALUES, 2, axis=0).T)
    record = only(make({"all.csv": text(header, columns).encode(encoding)}, visual="all.csv"))
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)
    cells = text(header, columns).splitlines()
    cells[21] = cells[21].rsplit(",", 1)[0] + ",x"
    with pytest.raises(UserError, match=r"all\.csv: line 22: column 'b' holds 'x'"):
        only(make({"all.csv": "\n".join(cells)}, visual="all.csv"), cells[21][:2])


def test_raters_become_a_gold_standard(make):
    raters = [np.clip(LABELS + shift, -1, 1).round(4) for shift in (0.0, 0.05)]
    flat = text(
        ["time", "valence", "arousal", "rater"],
        [np.tile(TIMES, 2), *np.concatenate(raters).T, ["ann"] * COUNT + ["bob"] * COUNT],
    )
    one = only(make({"labels/r1.csv": flat, "v/r1.csv": plain()}, gold_standard="mean"))
    apart = {
        f"by/{d}/r1.csv": text(["time", "ann ", "bob"], [TIMES, raters[0][:, i], raters[1][:, i]], ";")
        for i, d in enumerate(("valence", "arousal"))
    }
    two = only(make({**apart, "v/r1.csv": plain()}, labels="by/{dimension}", gold_standard="mean"))
    for record in (one, two):
        np.testing.assert_allclose(record["raters"], np.stack(raters, axis=1), atol=1e-6)
        np.testing.assert_allclose(record["targets"], np.mean(raters, axis=0), atol=1e-6)


def by_rater(*headers):
    """Files of labels by dimension: those of r1, r2, … with these columns, all of them of the same values."""
    return {"labels/r1.csv": None} | {
        f"by/{d}/r{number}.csv": text(["time", *header], [TIMES, *[LABELS[:, i]] * len(header)])
        for i, d in enumerate(("valence", "arousal"))
        for number, header in enumerate(headers, 1)
    }


def test_a_recording_that_only_one_rater_labels_keeps_its_labels(make):
    files = by_rater(["A1", "A2"], ["A2"]) | {"v/r1.csv": plain(), "v/r2.csv": plain()}
    record = only(make(files, labels="by/{dimension}"), "r2")
    np.testing.assert_allclose(record["targets"], LABELS, atol=1e-6)
    assert record["target_mask"].all()
    np.testing.assert_allclose(record["raters"][:, 1], LABELS, atol=1e-6)
    assert np.isnan(record["raters"][:, 0]).all()


@pytest.mark.parametrize(
    "files",
    [
        by_rater(["A1", "A2"], ["value"]),
        {"labels/r1.csv": text(["time", "valence", "arousal", "rater"], [TIMES, *LABELS.T, ["A1"] * COUNT])},
    ],
)
def test_a_gold_standard_among_raters_is_refused(make, files):
    labels = "by/{dimension}" if len(files) > 1 else "labels"
    files = {"labels/r2.csv": LABELLED if labels == "labels" else None, **files}
    with pytest.raises(UserError, match=r"/r2\.csv: it names none of the raters of the data set \(A1"):
        read_all(make, {**files, "v/r1.csv": plain(), "v/r2.csv": plain()}, {"labels": labels})


def test_a_label_without_its_rater_is_refused(make):
    header = ["time", "valence", "arousal", "rater"]
    names = ["A1"] * (COUNT - 1) + [""] + ["A2"] * COUNT
    table = text(header, [np.tile(TIMES, 2), *np.tile(LABELS.T, 2), names])
    with pytest.raises(UserError, match=rf"/r1\.csv: line {COUNT + 1}: column 'rater' is empty: fill it in"):
        only(make({"labels/r1.csv": table, "v/r1.csv": plain()}))


@pytest.mark.parametrize("raters", [("A1 ", "A2"), (1, 2)])
def test_names_of_raters_are_the_same_in_every_recording(make, raters):
    header, columns = ["time", "rater", "valence", "arousal"], [*np.tile(LABELS.T, 2)]
    files = {
        "labels/r1.csv": text(header, [np.tile(TIMES, 2), np.repeat(raters, COUNT), *columns]) + "2.0,,,\n",
        "labels/r2.csv": text(
            header, [np.tile(TIMES, 2), np.repeat([str(r).strip() for r in raters], COUNT), *columns]
        ),
    }
    corpus = make({**files, "v/r1.csv": plain(), "v/r2.csv": plain()})
    for record in (only(corpus, "r1"), only(corpus, "r2")):
        np.testing.assert_allclose(record["raters"], np.stack([LABELS, LABELS], axis=1), atol=1e-6)


def test_another_recording_is_not_another_suffix():
    for name, file in (("S01.1", "S01.2"), ("S01", "S01.1"), ("S01", "S01.264"), ("S01.left", "S01.right")):
        assert names.match([name], [file], other_suffixes=reading.OF_RECORDINGS) == ({}, [])
    for name, file in (
        ("S01.1.mp4", "S01.1"),
        ("S01.1.mp4", "S01.1.wav"),
        ("S01.1", "S01.1.3gp"),
        ("clip1", "clip1.lrv"),
    ):
        assert names.match([name], [file], other_suffixes=reading.OF_RECORDINGS)[0] == {name: file}


def test_a_recording_may_begin_and_end_a_table_of_several(make):
    order = [*range(5), *range(20, 40), *range(5, 20)]
    columns = [[["r1"] * COUNT + ["r2"] * COUNT], *[np.tile(c, 2) for c in (TIMES, *VALUES.T)]]
    table = text(["name", "time", "a", "b"], [np.ravel(column)[order] for column in columns])
    table = table.replace("\n", "\n,,,\n", 7)  # rows of empty cells belong to no recording
    record = only(make({"all.csv": table}, visual="all.csv"))
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)


def test_a_recording_of_one_name_may_lack_it_in_a_row(make):
    table = text(["name", "time", "a", "b"], [["x"] * 5 + [""] + ["x"] * 14, TIMES, *VALUES.T])
    np.testing.assert_allclose(only(make({"v/r1.csv": table}))["visual"], VALUES, atol=1e-5)


def test_the_longest_gap_of_nearest_is_from_a_row_to_a_label():
    values, at = np.ones((2, 1), np.float32), np.array([0.0, 0.8, 1.5, 9.2])
    time, valid = np.array([0.0, 10.0]), np.ones(2, bool)
    mask = align.to_times(time, values, valid, at, "nearest", max_gap=1.0)[1]
    assert mask.tolist() == [True, True, False, True]


def test_times_that_differ_by_milliseconds_late_in_a_recording_are_different(make):
    files = {"labels/r1.csv": None, "v/r1.csv": plain(time=TIMES + 1000)}
    files["by/valence/r1.csv"] = text(["time", "value"], [TIMES + 1000, LABELS[:, 0]])
    files["by/arousal/r1.csv"] = text(["time", "value"], [TIMES + 1000.005, LABELS[:, 1]])
    targets = only(make(files, labels="by/{dimension}"))["targets"]
    np.testing.assert_allclose(targets[1:, 1], LABELS[1:, 1] + 0.05 * 1.8 / 19, atol=2e-4)


def test_folders_above_labels_elsewhere_do_not_say_the_split(make, tmp_path):
    make({"test_set/r1.csv": LABELLED, "s/v/r1.csv": plain()})
    corpus = Features(tmp_path / "s", Options(visual="v", labels=str(tmp_path / "test_set")))
    with pytest.raises(UserError, match=r"recording 'r1' does not say its split"):
        corpus.items()


def test_a_quoted_cell_may_hold_the_delimiter(make):
    table = text(["time", "a", "b", "note"], [TIMES, *VALUES.T, ['"x,y"'] * COUNT])
    np.testing.assert_allclose(only(make({"v/r1.csv": table}, visual="v:cols=!note"))["visual"], VALUES, atol=1e-5)


def test_delay_scale_and_rate_of_labels(make):
    scaled = text(["time", "valence", "arousal"], [TIMES + 0.3, *(5 + 4 * LABELS.T)])
    record = only(make({"labels/r1.csv": scaled, "v/r1.csv": plain()}, delay=0.3, scale="1,9", rate=5.0))
    np.testing.assert_allclose(record["time"], TIMES[::2], atol=1e-6)
    np.testing.assert_allclose(record["targets"], LABELS[::2], atol=1e-5)
    np.testing.assert_allclose(record["visual"], VALUES[::2], atol=1e-5)


NAMES = ("DE_1", "DE_2", "HU_1", "HU_2")


def tree(folder="labels"):
    return {f"{d}/{n}.csv": LABELLED if d == "labels" else plain() for d in (folder, "v") for n in NAMES}


@pytest.mark.parametrize(
    ("options", "dev", "test"),
    [
        ({"group": "^(DE|HU)", "hold_out": "HU"}, {"HU_1", "HU_2"}, set()),
        ({"folds": 4, "fold": 1}, {"DE_2"}, set()),
        ({"folds": 2, "subject": "^.."}, {"DE_1", "DE_2"}, set()),
        ({"table": "s.csv"}, {"HU_1"}, {"HU_2"}),
    ],
)
def test_splits(make, options, dev, test):
    table = "Id,Proposal,speaker\nDE_1,train,x\nDE_2,train,x\nHU_1,devel,y\nHU_2,test,z\n"
    corpus = make({**tree(), "labels/r1.csv": None, "s.csv": table}, split="", **options)
    items = corpus.items()
    assert {i.key for i in items if i.split == "dev"} == dev
    assert {i.key for i in items if i.split == "test"} == test
    assert len(items) == 4


def test_classes_and_recordings_without_labels(make):
    files = {f"v/{n}.csv": plain() for n in NAMES}
    table = "file,label,split,group\n" + "".join(
        f"{n}.mp4,{label},{split},g\n"
        for n, label, split in zip(NAMES, ("happy", "sad", "happy", ""), ("train", "train", "dev", "test"), strict=True)
    )
    corpus = make({**files, "labels/r1.csv": None, "t.csv": table}, labels="", table="t.csv", split="")
    records = {item.key: only(corpus, item.key) for item in corpus.items()}
    assert [records[n + ".mp4"]["label"] for n in NAMES] == [1, 2, 1, -1]
    np.testing.assert_allclose(records["DE_1.mp4"]["visual"], VALUES, atol=1e-5)
    assert not records["DE_1.mp4"]["target_mask"].any()


def test_unlabelled_test_recordings_are_kept(make):
    files = {"labels/train_1.csv": LABELLED, "labels/r1.csv": None}
    files |= {f"v/{n}.csv": plain() for n in ("train_1", "test_1", "train_2")}
    corpus = make(files, split="")
    assert [(item.key, item.split) for item in corpus.items()] == [("train_1", "train"), ("test_1", "test")]
    assert corpus.notes == ["1 recordings without labels are left out, such as 'train_2'"]
    record = only(corpus, "test_1")
    np.testing.assert_allclose(record["visual"], VALUES, atol=1e-5)
    assert not record["target_mask"].any()


@pytest.mark.parametrize(
    ("label", "name", "said"),
    [
        ("r1", "R1", "match only if case is ignored"),
        ("r1", "r1.mp4", "match only if suffixes are ignored"),
        ("r1.wav", "r1.mp4", "match only if suffixes are ignored"),
        (unicodedata.normalize("NFC", "é1"), unicodedata.normalize("NFD", "é1"), "the form of accents"),
    ],
)
def test_names_that_nearly_match_are_matched_with_a_note(make, label, name, said):
    corpus = make({"labels/r1.csv": None, f"labels/{label}.csv": LABELLED, f"v/{name}.csv": plain()})
    np.testing.assert_allclose(only(corpus, label)["visual"], VALUES, atol=1e-5)
    assert any(said in note for note in corpus.notes)


def test_a_missing_stream_is_masked_and_counted(make):
    names = [f"r{number}" for number in range(1, 7)]
    files = {f"{folder}/{name}.csv": plain() for folder in ("a", "v") for name in names}
    files |= {f"labels/{name}.csv": LABELLED for name in names} | {"v/r6.csv": None}
    corpus = make({name: content for name, content in files.items() if content}, audio="a")
    record = only(corpus, "r6")
    assert not record["visual_mask"].any()
    assert record["audio_mask"].all()
    assert "no visual" in record["flags"]
    assert corpus.notes == ["stream visual lacks 1 of 6 recordings, such as 'r6': it is masked there"]


def read_all(make, files, options):
    """Reads every recording."""
    corpus = make(files, **options)
    for item in corpus.items():
        list(corpus.process(item))


def changed(line, text_of=None):
    """The plain table with one line changed."""
    lines = plain().splitlines()
    lines[line - 1] = text_of(lines[line - 1]) if text_of else lines[line - 2]
    return "\n".join(lines) + "\n"


def archive(**arrays):
    """Writes features and other arrays."""
    return lambda path: np.savez(path, features=VALUES, **arrays)


def as_other(save):
    """Writes a file of NumPy's under any suffix."""

    def write(path):
        with path.open("wb") as file:
            save(file, VALUES)

    return write


def half_an_archive(path):
    archive(time=TIMES)(path)
    path.write_bytes(path.read_bytes()[:300])


WORDS = np.array(["x"] * COUNT)
LONGER = text(["time", "valence", "arousal"], [np.arange(60) / RATE, np.zeros(60), np.zeros(60)])


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        (
            {"v/r1.csv": text(["a", "b"], VALUES[:15].T)},
            {},
            r"v/r1\.csv: .*15 rows without times for 20 labels: add .*rate=HZ",
        ),
        (
            {"v/r1.csv": plain(time=TIMES * 1000)},
            {},
            r"v/r1\.csv: line 21: stream visual ends at 1900 s.*such as unit=ms",
        ),
        (
            {"v/r1.csv": plain(time=FRAMES, header=("frame", "a", "b"))},
            {},
            r"r1\.csv: .*no times: give its frames per second",
        ),
        ({"v/other.csv": plain()}, {}, r"/v: stream visual lacks 1 of 1 .*'r1'.*: rename the files"),
        ({"v/r_1.csv": plain()}, {}, r"lacks 1 of 1 .*'r1'; the nearest name is 'r_1'"),
        ({"v/r1.csv": changed(8)}, {}, r"v/r1\.csv: line 8: time 0\.5 stands twice: remove"),
        (
            {"v/r1.csv": changed(8, lambda line: "0.1," + line.split(",", 1)[1])},
            {},
            r"line 8: time 0\.1 comes after 0\.5: sort",
        ),
        ({"v/r1.csv": changed(5, lambda line: "," + line.split(",", 1)[1])}, {}, r"line 5: the time is missing: fill"),
        (
            {"v/r1.csv": changed(7, lambda line: line.rsplit(",", 1)[0] + ",happy")},
            {},
            r"line 7: column 'b' holds 'happy'.*cols=!b",
        ),
        ({"v/r1.csv": changed(7, lambda line: line + ",1")}, {}, r"v/r1\.csv: line 7: 4 cells for 3 columns"),
        (
            {"all.csv": text(["name", "time", "a"], [["r1", "r1", "", "r2"], [0, 1, 0, 1], [1, 2, 3, 4]])},
            {"visual": "all.csv"},
            r"all\.csv: line 4: the recording's name is missing: fill it in",
        ),
        ({"v/r1.csv": plain(header=("time", "a", "a"))}, {}, r"v/r1\.csv: line 1: two columns are called 'a'; rename"),
        (
            {"v/r1.csv": text(["time", "a", "b"], [TIMES, VALUES[:, 0], [""] * COUNT])},
            {},
            r"column 'b' holds no number.*cols=!b",
        ),
        (
            {"v/r1.csv": plain(), "v/r1.npy": b""},
            {},
            r"v/r1\.csv and .*v/r1\.npy both contain recording 'r1': remove one",
        ),
        (
            {"v/r1.csv": plain(), "labels/r1.csv": LONGER},
            {},
            r"v/r1\.csv: line 21: stream visual ends at 1\.9 s, 3\.90 s before "
            r"the labels of .*labels/r1\.csv, line 61: .*--tolerance=4",
        ),
        (
            {"v/r1.csv": plain(";").replace(".", ",").replace("0,1;", "0.1;", 1)},
            {},
            r"v/r1\.csv: line \d+: .* use the point",
        ),
        ({"v/r1.csv": ""}, {}, r"v/r1\.csv: it is empty"),
        ({"v/r1.csv": "time,a\n"}, {}, r"v/r1\.csv: it has no row"),
        ({"v/r1.csv": bytes(range(256)) * 8}, {}, r"v/r1\.csv: it is no text"),
        ({"v/r1.npy": b"no array"}, {}, r"v/r1\.npy: it is no array of numbers"),
        ({"v/r1.npz": b"no archive"}, {}, r"v/r1\.npz: it is no archive"),
        ({"v/r1.npz": half_an_archive}, {}, r"v/r1\.npz: it is no archive"),
        ({"v/r1.npz": as_other(np.save)}, {}, r"v/r1\.npz: it is no archive"),
        ({"v/r1.npy": as_other(np.savez)}, {}, r"v/r1\.npy: it is no array of numbers"),
        (
            {"v/r1.npz": archive(intervals=TIMES)},
            {},
            r"v/r1\.npz: intervals is float64 \[20\]: numbers \[rows, 2\] are",
        ),
        ({"v/r1.npz": archive(time=WORDS)}, {}, r"v/r1\.npz: time is <U1 \[20\]: numbers are expected"),
        ({"v/r1.npz": archive(time=TIMES, success=WORDS)}, {}, r"v/r1\.npz: success is <U1 \[20\]: numbers are"),
        ({"v/r1.npz": archive(time=TIMES, confidence=WORDS)}, {}, r"v/r1\.npz: confidence is <U1 \[20\]: numbers are"),
        (
            {"v/r1.csv": changed(7, lambda line: line.rsplit(",", 1)[0] + "\n0.6,1,2,3")},
            {"visual": "v:sort=yes"},
            r"v/r1\.csv: line 7: 2 cells for 3 columns: fix the line",
        ),
        ({"v/r1.npz": lambda path: np.savez(path, x=np.array([{}]))}, {}, r"v/r1\.npz: array 'x' holds Python objects"),
        (
            {"v/r1.npy": lambda path: np.save(path, VALUES[None, None])},
            {"visual": "v:rate=10"},
            r"r1\.npy: .*\[1, 1, 20, 2\]",
        ),
        ({"v/r1.arff": "@relation x\n"}, {}, r"v/r1\.arff: it is no ARFF file"),
        ({"v/r1.arff": ARFF.split("@data")[0] + "@data\n{0 1}\n"}, {}, r"r1\.arff: line \d+: it is a sparse ARFF"),
        (
            {"v/r1.csv": plain()},
            {"visual": "v:cols=AU*"},
            r"v/r1\.csv: no column matches cols=AU\* \(it has time, a, b\)",
        ),
        ({"v/r1.csv": plain()}, {"visual": "v:time=t"}, r"v/r1\.csv: it has no column 't'"),
        (
            {"v/r1.csv": plain(), "v/r2.csv": plain(header=("time", "a", "c")), "labels/r2.csv": LABELLED},
            {},
            r"v/r2\.csv: its columns are not those of .*r1\.csv: it also has c; it lacks b",
        ),
        (
            {"v/r1.csv": plain(), "labels/r1.csv": LABELLED.replace("valence", "pleasure")},
            {},
            r"labels/r1\.csv: it lacks column valence",
        ),
        (
            {"v/r1.csv": plain(), "labels/r1.csv": text(["time", "valence", "arousal"], [TIMES, *(5 * LABELS.T)])},
            {},
            r"labels/r1\.csv, line 2: the label -2\.5 lies outside -1 to 1: name the range by --scale",
        ),
        ({"v/r1.csv": plain()}, {"visual": "w"}, r"--visual=w: .*/w does not exist"),
        ({"v/r1.csv": plain()}, {"split": ""}, r"recording 'r1' does not say its split: give --table"),
        (
            {"v/r1.csv": plain(), "t.csv": "name,split\nr2,train\n"},
            {"table": "t.csv"},
            r"t\.csv: recording 'r1' is in no line",
        ),
        (
            {"v/r1.csv": plain(), "t.csv": "name,split\nr1,tain\n"},
            {"table": "t.csv"},
            r"t\.csv, line 2: split 'tain' is not",
        ),
        ({"v/r1.csv": plain()}, {"group": "x"}, r"--group=x does not match recording 'r1'"),
        ({"v/r1.csv": plain()}, {"exclude": "q*"}, r"--exclude=q\* matches no recording"),
        ({"v/r1.csv": plain()}, {"folds": 3}, r"--folds=3 is too many: there are only 1"),
        ({"v/r1.csv": plain()}, {"preset": "avec2106"}, r"unknown preset 'avec2106'; did you mean 'avec2016'"),
        ({"v/r1.csv": b"version https://git-lfs.github.com/spec/v1\n"}, {}, r"v/r1\.csv: it is a pointer of Git LFS"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(make, files, options, said):
    with pytest.raises(UserError, match=said):
        read_all(make, files, options)


def test_presets_are_whole():
    for name in presets.names():
        assert {"title", "tree"} <= set(presets.read(name))
        chosen = Options(preset=name)
        chosen.check()
        resolved = chosen.resolved()
        assert resolved.labels
        assert dataclasses.replace(chosen, labels="mine").resolved().labels == "mine"
