"""`labels.csv` as people save it: understood where it is unmistakable, and said; otherwise refused with the remedy."""

import os
import shutil
import unicodedata

import numpy as np
import pytest

from data_prep import names
from data_prep.corpora import own
from media.errors import BadItem, UserError

SECONDS, FPS = 2.0, 25
TIMES = np.arange(21) / 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from helpers import corpora

    images, times, sound = corpora.talking(SECONDS, FPS)
    return corpora.write_video(tmp_path_factory.mktemp("clip") / "c.mp4", images, times, sound)


@pytest.fixture
def folder(tmp_path, clip):
    """Makes a folder with clips of these names and a table, and returns the corpus over it."""

    def make(table, names=("c0.mp4", "c1.mp4"), **options):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, tmp_path / name)
        (tmp_path / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        return own.Own(tmp_path, own.Options(detector="red", crop_size=8, **options))

    return make


def traced(header="file,time,valence,arousal", times=TIMES, line="c0.mp4,{time:g},{valence:.3f},-0.5"):
    """A table whose valence is half of its time in seconds, so that the right time can be read off each frame."""
    return "\n".join([header, *(line.format(time=t, valence=s / 2) for t, s in zip(times, TIMES, strict=False))]) + "\n"


def targets(corpus):
    """The first item's (time, targets, mask)."""
    (record,) = corpus.process(corpus.items()[0])
    return np.asarray(record["time"]), record["targets"], record["target_mask"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (traced(), ""),
        (traced("file,time (s),valence,arousal"), "holds times in s"),
        (traced("file,Time [ms],valence,arousal", 1000 * TIMES), "holds times in ms"),
        (traced(times=1000 * TIMES), "read as milliseconds"),
        (traced("file,frame,valence,arousal", range(0, 42, 2)), "frames are counted from 0"),
        (traced(line="c0.mp4,00:00:0{time:.2f},{valence:.3f},-0.5"), ""),
        (traced().replace(",", "\t"), "separated by tabs"),
        (traced().replace(",", ";").replace(".", ",").replace(",mp4", ".mp4"), "decimal comma"),
        ("sep=;\n" + traced().replace(",", ";"), ""),
        (traced().encode("utf-16"), "UTF-16"),
        (traced().encode("utf-16-le"), "UTF-16"),
        (b"\xef\xbb\xbf" + traced().replace("\n", "\r\n").encode(), ""),
        (traced().replace("\n", "\n,,,\n\n"), ""),
    ],
)
def test_times_are_understood_in_any_form(folder, red_square, table, said):
    corpus = folder(table)
    time, found, known = targets(corpus)
    wanted = time * (FPS / 20 if said.startswith("frames") else 1) / 2
    inside = wanted <= 1.0
    assert known[inside].all()
    np.testing.assert_allclose(found[inside, 0], wanted[inside], atol=2e-3)
    np.testing.assert_allclose(found[inside, 1], -0.5, atol=1e-6)
    assert said in " ".join(corpus.notes)
    assert bool(said) == bool(corpus.notes)


def test_frame_numbers_in_a_column_of_times_are_recognised(folder, red_square):
    corpus = folder(traced(times=np.round(FPS * TIMES)))
    time, found, known = targets(corpus)
    assert known.all()
    np.testing.assert_allclose(found[:, 0], time / 2, atol=0.011)  # they are rounded to whole frames
    assert "frame numbers" in corpus.notes[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (traced("file,time,valence", line="c0.mp4,{time:g},{valence:.3f}"), "it lacks arousal"),
        (traced("file,moment,valence,arousal"), "it lacks time"),
        (traced("file,time,valance,arousal"), "it lacks valence; column 'valance' is ignored; is it 'valence'?"),
        (traced().replace(",", ";").replace(".", ",").replace(",mp4", ".mp4").replace(";", ","), "cells for 4 columns"),
        (traced() + "c0.mp4,0.1,0.9,0.9\n", "c0.mp4 has two different lines at time 0.1"),
        (traced(times=100 * TIMES, line="c0.mp4,{time:g}%,{valence:.3f},0"), "line 2: time, valence or arousal: '0%'"),
        (traced(line='c0.mp4,"1,{time:03.0f}",{valence:.3f},0'), "could be a decimal or thousands"),
        (traced("file,time,time (s),valence", line="c0.mp4,{time:g},{time:g},0"), "two columns are time"),
        (traced(line="c0.mp4,{time:g},45.5,0"), "--scale=LOW,HIGH"),
        (traced().encode() + b"\x81\x8d", "it is no text"),
        ("file,label\nc0.mp4,Talk\nc1.mp4,talk\n", "differ only in case"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_what_could_mean_two_things_is_refused(folder, table, said):
    with pytest.raises(UserError) as error:
        folder(table).items()
    assert said in str(error.value)
    assert "labels.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_annotation_that_does_not_fit_its_recording_is_refused(folder, red_square):
    with pytest.raises(BadItem, match=r"runs from 0 to 59.9 s in 600 rows, the recording to 2 s"):
        targets(folder("file,time,valence,arousal\n" + "".join(f"c0.mp4,{t / 10},0,0\n" for t in range(600))))
    short = traced(times=TIMES[:4])
    with pytest.raises(BadItem, match="less than 50% of it"):
        targets(folder(short))
    assert targets(folder(short, min_coverage=0.0))[2].sum() == 11  # 0.3 s, and one step of 0.1 s


def test_an_annotation_that_ends_early_is_masked_and_said(folder, red_square):
    corpus = folder(traced(times=TIMES[:12]))
    (record,) = corpus.process(corpus.items()[0])
    assert "annotation ends early" in record["flags"]
    np.testing.assert_array_equal(record["target_mask"], record["time"] <= 1.2)


def test_a_hole_becomes_mask_and_a_missing_line_or_two_does_not(folder, red_square):
    times = [t for t in np.arange(101) / 50 if not 0.6 < t < 1.4 and not 0.2 < t < 0.25]
    table = "file,time,valence,arousal\n" + "".join(f"c0.mp4,{t:.2f},{t / 2:.3f},0\n" for t in times)
    corpus = folder(table)
    (record,) = corpus.process(corpus.items()[0])
    time, known = np.asarray(record["time"]), record["target_mask"]
    np.testing.assert_array_equal(known, (time < 0.63) | (time > 1.37))
    np.testing.assert_allclose(record["targets"][known & (time < 0.6), 0], time[known & (time < 0.6)] / 2, atol=1e-5)
    assert record["flags"] == ["annotation has a hole"]


@pytest.mark.parametrize("missing", ["NaN", "", "n/a"])
def test_a_missing_value_or_time_costs_its_line_and_no_more(folder, red_square, missing):
    lines = traced().splitlines()
    lines[5] = f"c0.mp4,0.4,{missing},-0.5"
    corpus = folder("\n".join(lines))
    time, _, known = targets(corpus)
    np.testing.assert_array_equal(~known, (time > 0.301) & (time < 0.499))
    assert corpus.notes == ["labels.csv: 1 lines lack valence or arousal and are masked"]
    lines[5] = f"c0.mp4,{missing},0.2,-0.5"
    corpus = folder("\n".join(lines))
    time, found, known = targets(corpus)
    assert known.all()
    np.testing.assert_allclose(found[:, 0], np.minimum(time / 2, 1), atol=2e-3)
    assert corpus.notes == ["labels.csv: 1 lines without a time are left out"]


NFC, NFD = (unicodedata.normalize(form, "für.mp4") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("on_disk", "in_table", "said"),
    [
        ("c0.mp4", "c0.mp4", ""),
        ("c0.mp4", "./c0.mp4", "accents or slashes"),
        ("a/c0.mp4", "a\\c0.mp4", "accents or slashes"),
        ("a\\c0.mp4", "a\\c0.mp4", ""),
        (NFD, NFC, "accents or slashes"),
        (NFC, NFD, "accents or slashes"),
        ("C0.MP4", "c0.mp4", "case"),
        ("c0.mp4", "c0", "match only if suffixes are ignored"),
        ("12:30/c:0.mp4", "12:30/c:0.mp4", ""),
        (os.fsdecode("mäde.mp4".encode("latin-1")), "mäde.mp4", ""),
    ],
)
def test_names_are_matched_but_for_their_spelling(folder, red_square, on_disk, in_table, said):
    corpus = folder(f"file,label,split\n{in_table},sad,train\n", [on_disk])
    (item,) = corpus.items()
    assert item.split == "train"
    assert next(corpus.process(item))["label"] == 2
    item.key.encode()  # can be stored
    assert said in " ".join(corpus.notes)
    assert bool(said) == bool(corpus.notes)


def test_a_table_in_windows_1252_names_the_file(folder, red_square):
    corpus = folder("file,label,split\nmäde.mp4,sad,train\n".encode("cp1252"), ["mäde.mp4"])
    assert [item.split for item in corpus.items()] == ["train"]
    assert corpus.notes == ["labels.csv: not UTF-8, read as Windows-1252"]


def test_a_name_that_fits_no_file_or_several_is_never_guessed(folder):
    corpus = folder("file,label,split\nc0,sad,train\nc3.mp4,sad,train\n", ["c0.mp4", "c0.mkv"])
    items = {item.key: item for item in corpus.items()}
    assert [items[name].split for name in ("c0.mp4", "c0.mkv")] == ["test", "test"]
    with pytest.raises(BadItem, match=r"not in the folder; the nearest name is 'c0.mp4'"):
        next(corpus.process(items["c3.mp4"]))
    with pytest.raises(UserError, match=r"both 'c0' and 'c0.mp4' in the table mean c0.mp4"):
        names.match(["c0", "c0.mp4"], ["c0.mp4"])


def test_synonyms_of_the_canonical_classes_are_read_as_these(folder):
    corpus = folder("file,label\nc0.mp4,happiness\nc1.mp4,Angry\n")
    assert len(corpus.features()["label"].names) == 8
    corpus.items()
    assert corpus.notes == ["labels.csv: labels are read as the canonical classes: Angry as anger, happiness as happy"]
    own_classes = folder("file,label\nc0.mp4,happiness\nc1.mp4,nod\n").features()["label"].names
    assert own_classes == ["happiness", "nod"]


def test_a_cell_of_200_kilobytes_is_read(folder):
    corpus = folder(f"file,label,remark\nc0.mp4,sad,{'x' * 200_000}\n")
    assert corpus.items()[0].payload["name"] == "c0.mp4"


def test_changed_labels_change_the_item(folder):
    before = folder("file,label\nc0.mp4,sad\nc1.mp4,sad\n").items()
    after = folder("file,label\nc0.mp4,sad\nc1.mp4,fear\n").items()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
