"""Corpora as they really lie on disks: takes twice, clones without Git LFS, annotation with holes, damaged rows."""

import json

import numpy as np
import pytest

from data_prep import corpora
from data_prep.corpora import aff_wild2, ravdess, recola
from data_prep.preparation import prepare
from media.errors import BadItem, UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:c6f94b25\nsize 72862\n"


def test_each_take_of_ravdess_is_used_once_and_with_sound(tmp_path):
    for take in ("01-01-01-01-01-01", "01-03-01-01-01-01", "01-05-01-01-01-02"):
        for code in ("01", "02", "03"):
            if (code, take) != ("01", "01-05-01-01-01-02"):  # this one lies here without its sound
                (tmp_path / f"{code}-{take}.{'wav' if code == '03' else 'mp4'}").write_bytes(b"")

    def names(**options):
        corpus = ravdess.RAVDESS(tmp_path, ravdess.Options(**options))
        return sorted(item.key[:2] + item.key[5:8] for item in corpus.items()), corpus.notes

    found, notes = names()
    assert found == ["01-01", "01-03", "02-05"]
    assert notes == [
        "2 files hold a take that is used from another file, with its sound if it has any",
        "1 of 3 takes are silent (02-)",
    ]
    assert names(modality="audio-video") == (["01-01", "01-03"], [])
    assert names(modality="video-only")[0] == ["02-01", "02-03", "02-05"]
    assert names(modality="audio") == (["03-01", "03-03", "03-05"], [])
    with pytest.raises(UserError, match="unknown modality"):
        ravdess.Options(modality="vidoe").check()


def test_ravdess_as_zenodo_ships_it(real_data):
    folder = real_data / "real_files" / "corpora" / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    corpus = ravdess.RAVDESS(folder, ravdess.Options(crop_size=8))
    items = corpus.items()
    assert len(items) == 9
    (record,) = corpus.process(items[0])
    assert record["audio_mask"].any()


def test_a_clone_without_git_lfs_is_recognised(tmp_path):
    for actor in (1001, 1002):
        for folder, suffix in (("VideoFlash", "flv"), ("AudioWAV", "wav")):
            (tmp_path / "a" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / folder / f"{actor}_DFA_ANG_XX.{suffix}").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"1001_DFA_ANG_XX\.flv: it is a pointer of Git LFS .* `git lfs pull`"):
        prepare("crema_d", tmp_path / "a", tmp_path / "out", workers=1, quiet=True)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "FER2013Train.zip").write_bytes(POINTER)
    with pytest.raises(UserError, match="git lfs pull"):
        prepare("fer", tmp_path / "f", tmp_path / "out", workers=1, quiet=True)


def test_a_hole_in_recolas_annotation_is_masked(tmp_path, draw, red_square):
    source = draw.recola(tmp_path / "a", (16,), seconds=4)
    for path in source.glob("RECOLA-Annotation/*/*/P16.csv"):
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:26] + lines[76:]))  # rows of 1.0 to 2.96 s are gone
    corpus = recola.Recola(source, recola.Options(detector=red_square, crop_size=8))
    (record,) = corpus.process(corpus.items()[0])
    time, known = np.asarray(record["time"]), record["target_mask"]
    np.testing.assert_array_equal(known, (time < 1.01) | (time > 2.95))
    assert record["flags"] == ["annotation has a hole"]


def test_recola_annotated_in_another_unit_is_refused(tmp_path, draw, red_square):
    source = draw.recola(tmp_path / "a", (16,), seconds=2)
    path = source / "RECOLA-Annotation" / "emotional_behaviour" / "valence" / "P16.csv"
    lines = [line.split(";", 1) for line in path.read_text().splitlines()]
    path.write_text("\n".join([";".join(lines[0]), *(f"{i * 40};{rest}" for i, (_, rest) in enumerate(lines[1:]))]))
    corpus = recola.Recola(source, recola.Options(detector=red_square, crop_size=8))
    with pytest.raises(BadItem, match="runs from 0 to 2000 s in 51 rows, the recording to 2 s"):
        list(corpus.process(corpus.items()[0]))
    path.write_text(path.read_text().replace("time;", "time (ms);"))
    (record,) = corpus.process(corpus.items()[0])
    assert record["target_mask"].all()


@pytest.mark.parametrize(
    ("rows", "flags"), [(25, []), (27, ["annotation has more or fewer rows than frames"]), (40, None)]
)
def test_rows_of_aff_wild2_against_frames(tmp_path, draw, rows, flags):
    images, times, sound = draw.talking(1.0, 25)
    draw.video(tmp_path / "batch1" / "a.mp4", images, times, sound)
    table = tmp_path / "VA_Estimation_Challenge" / "Train_Set" / "a.txt"
    table.parent.mkdir(parents=True)
    table.write_text("valence,arousal\n" + "0.5,0.1\n" * rows)
    (tmp_path / "cropped_aligned" / "a").mkdir(parents=True)
    corpus = aff_wild2.AffWild2(tmp_path, aff_wild2.AffWild2.Options(crop_size=8))
    (item,) = corpus.items()
    if flags is None:
        with pytest.raises(BadItem, match="40 rows for 25 frames of the video"):
            list(corpus.process(item))
    else:
        (record,) = corpus.process(item)
        assert record["flags"] == flags


def test_a_table_of_aff_wild2_without_header_loses_no_row(tmp_path):
    (tmp_path / "a.txt").write_text("0.1,0.2\n0.3,0.4\n")
    np.testing.assert_array_equal(aff_wild2.read_table(tmp_path / "a.txt"), [[0.1, 0.2], [0.3, 0.4]])


@pytest.mark.parametrize("cell", ["http://[bad/1.jpg", "x" * 200_000, "nan"])
def test_one_bad_row_of_fec_is_a_skipped_item(tmp_path, draw, cell):
    import cv2

    pictures = tmp_path / "p"
    pictures.mkdir()
    for i in range(14):
        cv2.imwrite(str(pictures / f"{i}.jpg"), np.full((20, 20, 3), 10 * i, np.uint8))
    source = draw.fec(tmp_path / "fec", lambda i: f"file://{pictures}/{i}.jpg")
    path = source / "faceexp-comparison-data-train-public.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[1 if cell == "nan" else 0] = cell
    lines[1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    options = {"workers": 1, "quiet": True, "crop_size": 8, "download": True}
    target, _ = prepare("fec", source, tmp_path / "out", **options)
    card = json.loads((target / "card.json").read_text())
    assert [one["item"] for one in card["skipped"]] == ([] if cell.startswith("x") else ["train/2"])
    assert card["items"] == 24


def test_a_short_row_of_affectnets_lists_is_a_skipped_item(tmp_path):
    lists = tmp_path / "Manually_Annotated_file_lists"
    lists.mkdir()
    (lists / "training.csv").write_text("1/a.jpg,0,0,10,10,,1,0.1,0.2\n1/b.jpg,0\n")
    corpus = corpora.affectnet.AffectNet(tmp_path, corpora.affectnet.Options())
    _, bad = corpus.items()
    with pytest.raises(BadItem, match=r"training.csv, line 2: 2 columns, 9 expected"):
        next(corpus.process(bad))


def test_a_bad_row_of_ferplus_is_a_skipped_item(tmp_path):
    import cv2

    folder = tmp_path / "fer" / "FER2013Train"
    folder.mkdir(parents=True)
    rows = []
    for i in range(6):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((8, 8), 20 * i, np.uint8))
        rows.append(f'{i}.png,"(0, 0, 48, 48)",{i},5,0,0,0,0,0,0,0,0')
    rows[2] = "2.png,x,y"
    (folder / "label.csv").write_text("\n".join(rows) + "\n")
    target, _ = prepare("fer", tmp_path / "fer", tmp_path / "out", workers=1, quiet=True)
    skipped = [json.loads(line) for line in (target / "skipped.jsonl").read_text().splitlines()]
    assert [(one["item"], one["reason"]) for one in skipped] == [
        (
            "FER2013Train/2.png",
            "label.csv, line 3: a count is no whole number (invalid literal for int() with base 10: 'y')",
        )
    ]
    assert len(corpora.fer.FERUnlabelled(tmp_path / "fer", corpora.fer.Options()).items()) == 1  # a tie
