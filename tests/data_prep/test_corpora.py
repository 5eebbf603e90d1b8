"""Each corpus in its exact layout, with the pitfalls that caught other readers."""

import csv
import itertools
import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import builder
from data_prep.corpora import CORPORA, fec, fer, fer_triplets, recola
from data_prep.preparation import prepare
from media import records
from media.errors import BadItem, UserError


def read(folder, split):
    """Every record of a split, decoded, in stored order."""
    builder = tfds.builder_from_directory(str(folder))
    if split not in builder.info.splits:
        return []
    return list(builder.as_data_source(split=split))


def run(corpus, source, output, **options):
    target, done = prepare(corpus, source, output, workers=1, quiet=True, **options)
    assert done
    return target, json.loads((target / "card.json").read_text())


def clips(target, split):
    out = read(target, split)
    for record in out:
        records.check_clip({**record, "recording": record["recording"].decode()})
    return out


# ---- AffectNet


def test_affectnets_new_release(tmp_path, draw):
    source = draw.affectnet(tmp_path / "affectnet")
    target, card = run("affectnet", source, tmp_path / "out")
    train = {r["name"].decode(): r for r in read(target, "train")}
    assert len(train) == 22  # pictures 4 and 14 are Uncertain
    assert len(read(target, "dev")) == 11
    assert card["items_left_out"] == {"uncertain (9)": 3}
    record = train["train_set/5.jpg"]
    assert record["label"] == 5
    assert records.CLASSES[5] == "disgust"
    assert record["votes"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert record["valence"] == 0.5
    assert record["arousal"] == -0.25
    assert np.isnan(train["train_set/3.jpg"]["valence"])  # -2 is "no label", not a value
    stored = cv2.imread(str(source / "train_set" / "images" / "5.jpg"))[..., ::-1]
    np.testing.assert_array_equal(record["image"], stored)  # bytes are stored unchanged and decode to RGB


def test_an_alphabetical_repack_is_refused_and_the_remedy_works(tmp_path, draw):
    source = draw.affectnet(tmp_path / "affectnet", train=0, dev=1)
    alphabetical = sorted(records.CLASSES)
    counts = np.array([74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750]) // 800
    jpeg = (source / "val_set" / "images" / "0.jpg").read_bytes()
    number = 0
    for label, count in enumerate(counts):
        for _ in range(count):
            (source / "train_set" / "images" / f"{number}.jpg").write_bytes(jpeg)
            values = {"exp": alphabetical.index(records.CLASSES[label]), "val": 0.1, "aro": 0.1}
            for key, value in values.items():
                np.save(source / "train_set" / "annotations" / f"{number}_{key}.npy", str(value))
            number += 1
    with pytest.raises(UserError, match="--class_order=alphabetical"):
        prepare("affectnet", source, tmp_path / "out", workers=1, quiet=True)
    assert not (tmp_path / "out").exists()
    _, card = run("affectnet", source, tmp_path / "out", class_order="alphabetical")
    assert card["splits"]["train"]["labels"]["happy"] == counts[1]


def test_affectnet_without_contempt_has_seven_classes(tmp_path, draw):
    target, card = run("affectnet", draw.affectnet(tmp_path / "a"), tmp_path / "out", contempt=False)
    rows = read(target, "train")
    assert {int(row["label"]) for row in rows} == set(range(7))
    assert {row["votes"].shape for row in rows} == {(7,)}
    assert tfds.builder_from_directory(str(target)).info.features["label"].names == list(records.CLASSES[:7])
    assert card["items_left_out"]["contempt, left out on request"] == 4  # 7, 15 and 23 of 24; 7 of 12


@pytest.mark.parametrize("header", [True, False])
def test_affectnets_old_release(tmp_path, header):
    source = tmp_path / "old"
    folder = source / "Manually_Annotated_Images" / "12"
    folder.mkdir(parents=True)
    image = np.zeros((60, 80, 3), np.uint8)
    image[10:40, 20:50] = (200, 30, 30)
    cv2.imwrite(str(folder / "a b.jpg"), image[..., ::-1])
    lists = source / "Manually_Annotated_file_lists"
    lists.mkdir()
    columns = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    row = "12/a b.jpg,20,10,30,30,1.0;2.0,6,-0.4,0.7"
    (lists / "training.csv").write_text(f"{columns}\n{row}\n")
    (lists / "validation.csv").write_text(
        (f"{columns}\n" if header else "") + row.replace("a b", "c").replace(",6,", ",1,")
    )
    shutil.copy(folder / "a b.jpg", folder / "c.jpg")
    target, _ = run("affectnet", source, tmp_path / "out", margin=0.0)
    (record,) = read(target, "train")
    assert record["label"] == 6
    assert record["image"].shape == (30, 30, 3)
    assert np.abs(record["image"][15, 15].astype(int) - (200, 30, 30)).max() < 12
    (record,) = read(target, "dev")
    assert record["label"] == 1


# ---- FEC


def test_fec_crops_counts_dead_links_and_keeps_two_thirds(tmp_path, draw):
    pictures = tmp_path / "pictures é"
    pictures.mkdir()
    for i in range(13):
        image = np.full((50, 40, 3), 10 * i, np.uint8)
        cv2.imwrite(str(pictures / f"{i}.jpg"), image)
    source = draw.fec(tmp_path / "fec", lambda i: (pictures / f"{i}.jpg").as_uri())
    target, card = run("fec", source, tmp_path / "out", crop_size=32)
    assert card["items_left_out"] == {
        "the annotators disagree": 8,
        "a picture is not in the cache (dead link or not downloaded)": 2,
    }
    train = {r["name"].decode(): r for r in read(target, "train")}
    assert len(train) == 7
    record = train["train/2"]
    assert record["type"] == 1
    assert record["odd"] == 1  # the answer 2 names the picture outside the pair
    assert record["agreement"] == 0.75
    assert [image.shape for image in record["images"]] == [(32, 32, 3)] * 3
    assert [round(float(image[16, 16].mean()), -1) for image in record["images"]] == [10, 20, 30]


def test_an_address_is_looked_up_in_the_cache_by_its_sum_and_by_its_name(tmp_path):
    cache = tmp_path / "images"
    cache.mkdir()
    url = 'https://example.org/a "quoted" picture.jpg?x=1,2'
    corpus = fec.FEC(tmp_path, fec.Options())
    assert corpus.locate(url) is None
    (cache / 'a "quoted" picture.jpg').write_bytes(b"x")
    assert corpus.locate(url).name == 'a "quoted" picture.jpg'
    (cache / fec.cache_name(url)).write_bytes(b"x")
    assert corpus.locate(url).name == fec.cache_name(url)


def test_fec_rows_are_ragged(tmp_path):
    base = ["u", ".1", ".2", ".3", ".4"] * 3 + ["ONE_CLASS_TRIPLET"]
    assert fec.parse([*base, "a", "1"])[3] == [1]
    assert fec.parse([*base, "a", "1", "b", "3", "c", "3"])[2:] == (0, [1, 3, 3])
    with pytest.raises(BadItem, match="at least 18"):
        fec.parse(base)
    with pytest.raises(BadItem, match="1, 2 or 3"):
        fec.parse([*base, "a", "4"])


# ---- RECOLA


@pytest.fixture
def prepared_recola(tmp_path, draw, red_square):
    source = draw.recola(tmp_path / "source", (16, 19, 13), unlabelled=(13,))
    target, _ = run("recola", source, tmp_path / "out", detector=red_square, crop_size=24, max_frames=30)
    return target


def test_recola_keeps_every_frame_its_time_and_its_targets(prepared_recola):
    first, second = clips(prepared_recola, "train")
    assert (first["segment"], second["segment"]) == (0, 1)
    assert len(first["time"]) == 30
    assert len(second["time"]) == 20
    time = np.concatenate([first["time"], second["time"]])
    np.testing.assert_allclose(time, np.arange(50) / 25, atol=1e-4)
    targets = np.concatenate([first["targets"], second["targets"]])
    assert np.concatenate([first["target_mask"], second["target_mask"]]).all()
    # Valence rises and arousal falls by 0.25 per second; raters differ by 0.01.
    np.testing.assert_allclose(np.diff(targets[:, 0]), 0.01, atol=1e-4)
    np.testing.assert_allclose(np.diff(targets[:, 1]), -0.01, atol=1e-4)
    assert first["raters"].shape == (30, 6, 2)
    np.testing.assert_allclose(first["raters"][10, :, 0], 0.1 + 0.01 * np.arange(6), atol=1e-4)
    assert first["audio_mask"].all()
    assert first["face_mask"].all()
    assert len(first["frames"]) == 30
    assert first["frames"][0].shape == (24, 24, 3)
    assert first["subject"] == b"P16"


def test_recolas_test_set_has_no_labels(prepared_recola):
    (first, _) = clips(prepared_recola, "test")
    assert not first["target_mask"].any()
    assert first["raters"].shape == (30, 6, 2)
    assert np.isnan(first["raters"]).all()


def test_a_recording_without_annotation_or_sound_is_listed(tmp_path, draw, red_square):
    source = draw.recola(tmp_path / "source", (16, 21, 23), unlabelled=(21,))
    target, card = run("recola", source, tmp_path / "out", detector=red_square, crop_size=16)
    assert card["skipped"] == [{"item": "P21", "split": "train", "reason": "its annotation is missing"}]
    assert (target / "skipped.jsonl").read_text().count("\n") == 1
    (source / "RECOLA-Audio-recordings" / "P23.wav").unlink()
    with pytest.raises(UserError, match="2 of 3 items of recola failed"):
        prepare("recola", source, tmp_path / "other", workers=1, quiet=True, detector=red_square)
    assert [path.name[:7] for path in (tmp_path / "other" / "recola").iterdir()] == [".spool-"]  # finished work


def test_a_split_file_replaces_the_challenge_split(tmp_path, draw):
    source = draw.recola(tmp_path / "source", (16, 17), seconds=0.5)
    table = tmp_path / "split.csv"
    table.write_text("recording,split\nP17,train\nP16,dev\n")
    corpus = recola.Recola(source, recola.Options(split_file=str(table)))
    assert [(item.key, item.split) for item in corpus.items()] == [("P17", "train"), ("P16", "dev")]
    assert [item.key for item in recola.Recola(source, recola.Options()).items()] == ["P16"]
    table.write_text("P17,training\n")
    with pytest.raises(UserError, match=r"split.csv, line 1"):
        recola.Options(split_file=str(table)).check()


def write_avec(source, draw, names, year):
    images, times, sound = draw.talking(1.0, 25)
    for name in names:
        draw.video(source / "recordings_video" / f"{name}.mp4", images, times)
        draw.sound(source / "recordings_audio" / f"{name}.wav", sound)
        for dimension, value in (("arousal", 0.3), ("valence", -0.3)):
            if name.startswith("test"):
                continue
            if year in (2015, 2016):
                gold = source / "ratings_gold_standard" / dimension / f"{name}.arff"
                gold.parent.mkdir(parents=True, exist_ok=True)
                lines = "\n".join(f"{name},{i / 25:.2f},{value}" for i in range(26))
                gold.write_text(
                    "@relation x\n@attribute Instance_name string\n@attribute frameTime numeric\n"
                    f"@attribute GoldStandard numeric\n@data\n{lines}\n"
                )
            if year in (2016, 2018):
                single = source / "ratings_individual" / dimension / f"{name}.csv"
                single.parent.mkdir(parents=True, exist_ok=True)
                rows = [
                    ";".join(f"{v:.3f}" for v in (i / 25, *(i / 100 + 0.02 * r for r in range(6)))) for i in range(26)
                ]
                single.write_text("\n".join([draw.header, *rows]) + "\n")
    return source


@pytest.mark.parametrize("year", [2015, 2016, 2018])
def test_avecs_layouts(tmp_path, draw, red_square, year):
    source = write_avec(tmp_path / "avec", draw, ("train_1", "dev_1", "test_1"), year)
    target, card = run("recola", source, tmp_path / "out", detector=red_square, crop_size=16, gold_standard="mean")
    assert {name: part["counts"]["records"] for name, part in card["splits"].items()} == {
        "train": 1,
        "dev": 1,
        "test": 1,
    }
    (record,) = clips(target, "train")
    if year == 2018:  # it has no gold standard, so one is computed from the raters
        np.testing.assert_allclose(record["targets"][:, 0], np.arange(25) / 100 + 0.05, atol=1e-4)
    else:  # the challenge's own gold standard takes precedence
        np.testing.assert_allclose(record["targets"], [[-0.3, 0.3]] * 25, atol=1e-6)
    assert record["raters"].shape == (25, 6, 2)
    assert np.isnan(record["raters"]).all() == (year == 2015)
    (test,) = clips(target, "test")
    assert not test["target_mask"].any()


def test_folds_hold_every_participant_out_once():
    names = [f"P{number}" for number in (65, 16, 21, 23, 25, 37, 39, 41, 46, 56, 19)]
    held = [[n for n, s in recola.split_all(names, 4, fold).items() if s == "dev"] for fold in range(4)]
    assert sorted(name for fold in held for name in fold) == sorted(names)
    assert held == [[n for n, s in recola.split_all(names[::-1], 4, i).items() if s == "dev"] for i in range(4)]
    assert held[0] == ["P16", "P25", "P46"]  # by number, not by letters
    whole = recola.split_all([f"P{number}" for number in range(1, 47)])
    assert [list(whole.values()).count(split) for split in ("train", "dev", "test")] == [31, 8, 7]
    with pytest.raises(UserError, match="only 11 participants are annotated"):
        recola.split_all(names, 12)


def test_recola_by_folds_and_of_all_participants(tmp_path, draw):
    source = draw.recola(tmp_path / "source", (16, 17, 19, 21, 13, 22), seconds=0.2, unlabelled=(13,))

    def splits(**options):
        return {item.key: item.split for item in recola.Recola(source, recola.Options(**options)).items()}

    assert splits() == {"P16": "train", "P21": "train", "P19": "dev", "P13": "test"}
    assert splits(folds=3, fold=1) == {"P16": "train", "P21": "train", "P19": "dev"}
    everybody = {"P16": "train", "P17": "train", "P19": "dev", "P21": "train", "P22": "train"}
    assert splits(split="all") == everybody
    assert splits(split="all", folds=5, fold=4) == {**everybody, "P19": "train", "P22": "dev"}


def test_avec_by_folds(tmp_path, draw):
    source = write_avec(tmp_path / "avec", draw, ("train_1", "train_2", "dev_1", "test_1"), 2016)
    options = recola.Options(folds=3, fold=0)
    found = {item.key: item.split for item in recola.Recola(source, options).items()}
    assert found == {"dev_1": "dev", "train_1": "train", "train_2": "train", "test_1": "test"}
    with pytest.raises(UserError, match="--split=all needs the public download"):
        recola.Recola(source, recola.Options(split="all")).items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "half"}, "--split is challenge or all"),
        ({"folds": 1}, "--folds must be at least 2"),
        ({"folds": 3, "fold": 3}, "counted from 0 to 2"),
        ({"fold": 1}, "counted from 0 to 0"),
        ({"split_file": "x.csv", "folds": 2}, "leave --split and --folds out"),
    ],
)
def test_splits_of_recola_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        recola.Options(**options).check()


# ---- FER+


def write_fer(folder, count=40):
    rng = np.random.default_rng(0)
    for part in ("FER2013Train", "FER2013Valid"):
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as packed:
            lines = []
            for i in range(count):
                name = f"fer{i:07d}.png"
                packed.writestr(f"{part}/{name}", cv2.imencode(".png", rng.integers(0, 255, (48, 48), np.uint8))[1])
                counts = [0] * 10
                counts[i % 8] = 8
                counts[(i + 3) % 8] += 2
                if i == 0:
                    counts = [1, 0, 0, 0, 0, 0, 0, 0, 0, 9]
                if i == 1:
                    counts = [4, 0, 0, 0, 0, 0, 0, 0, 6, 0]
                if i == 2:
                    counts = [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]
                lines.append(f'{name},"(0, 0, 48, 48)",' + ",".join(map(str, counts)))
            packed.writestr(f"{part}/label.csv", "\n".join(lines) + "\n")
    return folder


def test_ferplus_holds_out_a_share_of_training_and_its_validation_part_becomes_the_test(tmp_path):
    source = write_fer(tmp_path / "fer")
    whole, _ = run("fer", source, tmp_path / "whole")
    target, _ = run("fer", source, tmp_path / "out", holdout=0.3)
    names = lambda folder, split: {r["name"].decode() for r in read(folder, split)}  # noqa: E731
    found = {split: names(target, split) for split in ("train", "dev", "test")}
    assert found["test"] == names(whole, "dev")
    assert found["train"] | found["dev"] == names(whole, "train")
    assert found["dev"]
    assert not found["train"] & found["dev"]
    options = fer_triplets.Options(train=30, dev=9, test=9, min_margin=0.1, holdout=0.3)
    for item in fer_triplets.FERTriplets(source, options).items():  # the same pictures in the same splits
        assert {f"{part}/{name}" for part, name in item.payload["pictures"]} <= found[item.split]


def test_ferplus_pictures_without_a_label_are_unlabelled_faces(tmp_path):
    source = write_fer(tmp_path / "fer")
    target, _ = run("fer_unlabelled", source, tmp_path / "out")
    labelled, _ = run("fer", source, tmp_path / "labelled")
    found = {r["name"].decode() for r in read(target, "train")}
    assert "FER2013Train/fer0000002.png" in found  # a tie
    assert not found & {r["name"].decode() for r in read(labelled, "train") if r["label"] >= 0}


def test_ferplus_votes_come_in_canonical_order(tmp_path):
    target, card = run("fer", write_fer(tmp_path / "fer"), tmp_path / "out")
    train = {r["name"].decode(): r for r in read(target, "train")}
    assert card["items_left_out"] == {"not a face": 2, "expression unknown to half of the raters": 2}
    # Column 3 is sadness, column 6 fear: canonical 2 and 4.
    record = train["FER2013Train/fer0000003.png"]
    assert record["label"] == records.CLASSES.index("sad")
    np.testing.assert_allclose(record["votes"], [0, 0, 0.8, 0, 0.2, 0, 0, 0], atol=1e-6)
    assert record["image"].shape == (48, 48, 3)
    tie = train["FER2013Train/fer0000002.png"]
    assert tie["label"] == -1
    np.testing.assert_allclose(tie["votes"][:2], [0.5, 0.5])


def test_triplets_from_votes_name_the_far_one(tmp_path):
    source = write_fer(tmp_path / "fer")
    target, card = run("fer_triplets", source, tmp_path / "out", train=30, dev=9, min_margin=0.1)
    by_name = {one.name: one for one in fer.labels(source, "FER2013Train")}
    assert card["splits"]["train"]["counts"]["records"] == 30
    assert sum(card["splits"]["train"]["labels"].values()) == 30
    for item in fer_triplets.FERTriplets(source, fer_triplets.Options(train=30, dev=9, min_margin=0.1)).items():
        if item.split != "train":
            assert all(part == "FER2013Valid" for part, _ in item.payload["pictures"])
            continue
        votes = [by_name[name].votes for _, name in item.payload["pictures"]]
        distances = [np.linalg.norm(votes[(i + 1) % 3] - votes[(i + 2) % 3]) for i in range(3)]
        odd = item.payload["odd"]
        assert all(distances[odd] <= distances[i] - 0.1 + 1e-9 for i in range(3) if i != odd)
    assert len(read(target, "dev")) == 9


# ---- RAVDESS


def test_ravdess_by_speaker(tmp_path, draw):
    source = tmp_path / "ravdess"
    for actor in (1, 2, 3):
        for emotion in (1, 3):
            name = f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav"
            draw.sound(source / f"Actor_{actor:02d}" / name, 0.1 * np.random.default_rng(actor).standard_normal(24000))
    target, card = run("ravdess", source, tmp_path / "out", modality="audio", crop_size=8)
    train, dev = clips(target, "train"), clips(target, "dev")
    assert {r["subject"] for r in train} == {b"01", b"02"}
    assert {r["subject"] for r in dev} == {b"03"}
    assert card["classes"][2] == "happy"
    assert sorted(int(r["label"]) for r in train) == [0, 0, 2, 2]
    np.testing.assert_allclose(train[0]["time"], np.arange(37) / 25, atol=1e-6)
    assert not train[0]["face_mask"].any()
    assert train[0]["audio_mask"].all()
    with pytest.raises(UserError, match="no speaker 9"):
        prepare("ravdess", source, tmp_path / "x", modality="audio", dev_speakers="9")


def test_ravdess_of_one_speaker_shares_no_repetition(tmp_path, draw, red_square):
    source = tmp_path / "ravdess"
    images, times, sound = draw.talking(0.6, 10)
    for emotion in (2, 3):
        for statement in (1, 2):
            for repetition in (1, 2):
                name = f"01-01-{emotion:02d}-01-{statement:02d}-{repetition:02d}-01.mp4"
                draw.video(source / name, images, times, sound)
    target, _ = run("ravdess", source, tmp_path / "out", detector=red_square, crop_size=8)
    groups = {}
    for split in ("train", "dev"):
        found = [r["recording"].decode() for r in clips(target, split)]
        groups[split] = {name[6:14] for name in found}
        assert {name[6:8] for name in found} == {"02", "03"}
    assert not groups["train"] & groups["dev"]


def test_ravdess_folds_share_neither_sentence_nor_repetition(tmp_path, draw):
    source = tmp_path / "ravdess"
    for emotion, statement, repetition in itertools.product((1, 3), (1, 2), (1, 2)):
        name = f"03-01-{emotion:02d}-01-{statement:02d}-{repetition:02d}-01.wav"
        draw.sound(source / name, np.zeros(8000))
    builder, tested = CORPORA["ravdess"], []
    for fold in (1, 2, 3, 4):
        options = builder.Options(modality="audio", split="fold", fold=fold)
        items = builder(source, options).items()
        cells = {s: {item.key[12:17] for item in items if item.split == s} for s in ("train", "dev", "test")}
        (test,), (train,) = cells["test"], cells["train"]
        assert test[:2] != train[:2]
        assert test[3:] != train[3:]
        assert len(cells["dev"]) == 2
        assert [item.split for item in items].count("test") == 2
        tested.append(test)
    assert sorted(tested) == ["01-01", "01-02", "02-01", "02-02"]
    with pytest.raises(UserError, match="takes --fold=1 to 4"):
        builder.Options(split="fold").check()
    for path in source.glob("*-02-01.wav"):
        path.unlink()
    with pytest.raises(UserError, match=r"leaves .* empty"):
        builder(source, builder.Options(modality="audio", split="fold", fold=1)).items()


# ---- your own folders


def test_unlabelled_faces_from_videos_and_pictures(tmp_path, draw, red_square):
    source = tmp_path / "any folder é"
    images = [draw.picture((30, 30, 30) if i < 10 else None) for i in range(20)]
    draw.video(source / "sub" / "a.mp4", images, np.arange(20) / 10)
    cv2.imwrite(str(source / "b.png"), draw.picture(None))
    (source / "loop").symlink_to(source)
    target, card = run("unlabelled", source, tmp_path / "out", detector=red_square, fps=5, crop_size=16)
    found = {r["name"].decode(): r for r in read(target, "train")}
    assert set(found) == {"b.png", *(f"sub/a.mp4@{i}" for i in range(5))}
    assert all(r["label"] == -1 and r["votes"].max() == 0 for r in found.values())
    assert card["splits"]["train"]["labels"] == {"unlabelled": 6}


def write_own(folder, draw, count=4):
    images, times, sound = draw.talking(1.0, 10)
    for i in range(count):
        draw.video(folder / f"clip {i}.mp4", images, times, sound)
    return folder


def test_your_own_clips_with_labels(tmp_path, draw, red_square):
    source = write_own(tmp_path / "own", draw)
    (source / "labels.csv").write_text(
        "file, label, subject, split\nclip 0.mp4,happy,ann,train\nclip 1.mp4,sad,ann,train\nclip 2.mp4,sad,bob,dev\n"
    )
    target, _ = run("own", source, tmp_path / "out", detector=red_square, crop_size=16)
    assert [r["label"] for r in clips(target, "train")] == [1, 2]
    assert [r["subject"] for r in clips(target, "dev")] == [b"bob"]
    assert [r["recording"] for r in clips(target, "test")] == [b"clip 3.mp4"]


def test_your_own_traces_by_two_raters(tmp_path, draw, red_square):
    source = write_own(tmp_path / "own", draw, 2)
    with (source / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "time", "valence", "arousal", "rater", "split"])
        for i in range(11):
            for rater, offset in (("r1", 0.0), ("r2", 0.4)):
                writer.writerow(["clip 0.mp4", i / 10, 5 + offset + i / 10, 3, rater, "train"])
    with pytest.raises(UserError, match="--scale=LOW,HIGH"):
        prepare("own", source, tmp_path / "out", workers=1, detector=red_square)
    target, _ = run(
        "own", source, tmp_path / "out", detector=red_square, crop_size=16, scale="1,9", gold_standard="mean"
    )
    (record,) = clips(target, "train")
    assert record["raters"].shape == (10, 2, 2)
    np.testing.assert_allclose(record["targets"][:, 0], 0.05 + np.arange(10) / 40, atol=1e-5)
    np.testing.assert_allclose(record["targets"][:, 1], -0.5, atol=1e-5)


def test_a_speaker_in_two_splits_is_an_error(tmp_path, draw):
    source = write_own(tmp_path / "own", draw, 2)
    (source / "labels.csv").write_text("file,subject,split\nclip 0.mp4,ann,train\nclip 1.mp4,ann,dev\n")
    with pytest.raises(UserError, match="'ann' is in both 'train' and 'dev'"):
        prepare("own", source, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


# ---- what TFDS is told


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_corpus_says_where_it_comes_from(tmp_path, name):
    kind = CORPORA[name]
    corpus = kind(tmp_path, kind.Options())
    maker = builder.CorpusBuilder(corpus, name=name, output=tmp_path)
    info = maker.info
    assert kind.title in info.description
    assert kind.access in maker.MANUAL_DOWNLOAD_INSTRUCTIONS
    assert all(line.strip() in maker.MANUAL_DOWNLOAD_INSTRUCTIONS for line in kind.layout.strip().splitlines())
    assert info.redistribution_info.license == kind.licence != ""
    if name not in ("features", "own", "unlabelled"):  # your own files have no paper and no web page
        assert info.citation == kind.citation != ""
        assert info.homepage == kind.homepage
        assert kind.homepage.startswith("http")


def test_dataset_info_keeps_it(tmp_path, draw):
    target, _ = run("affectnet", draw.affectnet(tmp_path / "a", train=3, dev=1), tmp_path / "out")
    stored = json.loads((target / "dataset_info.json").read_text())
    kind = CORPORA["affectnet"]
    assert kind.title in stored["description"]
    assert kind.access in stored["description"]
    assert stored["citation"] == kind.citation
    assert stored["redistributionInfo"]["license"] == kind.licence
    assert kind.homepage in stored["location"]["urls"]
    assert {split["name"] for split in stored["splits"]} == {"train", "dev"}


def test_pictures_as_webp(tmp_path, draw, red_square):
    faces, _ = run("affectnet", draw.affectnet(tmp_path / "a", 3, 1), tmp_path / "faces", image_format="webp")
    stored = cv2.imread(str(tmp_path / "a" / "train_set" / "images" / "1.jpg"))[..., ::-1]
    (record,) = [r for r in read(faces, "train") if r["name"] == b"train_set/1.jpg"]
    assert np.abs(record["image"].astype(int) - stored).mean() < 12  # noise, the worst case, at quality 95
    source = draw.recola(tmp_path / "r", (16,), seconds=0.4)
    target, _ = run("recola", source, tmp_path / "out", detector=red_square, crop_size=16, image_format="webp")
    (clip,) = clips(target, "train")
    assert clip["frames"][0][8, 8, 0] > 150 > clip["frames"][0][8, 8, 2]  # red stays red
    assert "data:image/webp" in (target / "card.html").read_text()
    triplets, _ = run("fer_triplets", write_fer(tmp_path / "f"), tmp_path / "t", train=6, dev=0, image_format="webp")
    assert read(triplets, "train")[0]["images"][0].shape == (48, 48, 3)


def test_clips_without_frames_and_empty_files_are_all_accounted_for(tmp_path, draw, red_square):
    source = write_own(tmp_path / "ein Ordner é", draw, 40)
    draw.video(source / "one frame.mp4", [draw.picture((30, 30, 30))], [0.0])
    draw.sound(source / "no sample.wav", np.zeros(0))
    (source / "empty.mp4").write_bytes(b"")
    (source / "loop").symlink_to(source)
    target, card = run("own", source, tmp_path / "out", detector=red_square, crop_size=8)
    found = {r["recording"].decode(): r for r in clips(target, "test")}
    assert card["items"] == 43
    assert len(found) + card["items_skipped"] + sum(card["items_left_out"].values()) == 43
    assert len(found["one frame.mp4"]["time"]) == 1
    assert "empty.mp4" in {one["item"] for one in card["skipped"]}
    if "no sample.wav" in found:
        assert not found["no sample.wav"]["audio_mask"].any()
