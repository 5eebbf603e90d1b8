"""Each preset reads the layout that it is for: spelling of folders, files and headers, rates and missing values."""

import itertools

import numpy as np
import pytest

from data_prep.corpora.features import Features, Options
from data_prep.features import presets

RNG = np.random.default_rng(0)
NUMBERS = (1, 2)


def arff(path, relation, names, columns, instance=""):
    """Writes an ARFF file as openSMILE and the challenges do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = [f"@relation {relation}", ""] + (["@attribute Instance_name string"] if instance else [])
    head += [f"@attribute {name} numeric" for name in names] + ["", "@data", ""]
    rows = [",".join([*([instance] if instance else []), *(f"{v:.6g}" for v in row)]) for row in columns]
    path.write_text("\n".join([*head, *rows]) + "\n")


def csv(path, header, columns, delimiter=",", first=""):
    """Writes a CSV file, with a name in the first column if there is one, and a header if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [delimiter.join([*([first] if first else []), *(f"{v:.6f}" for v in row)]) for row in columns]
    path.write_text("\n".join([*([delimiter.join(header)] if header else []), *rows]) + "\n")


def timed(count, step, dim):
    """Times and values `[count, 1 + dim]`."""
    return np.column_stack([np.arange(count) * step, RNG.uniform(-1, 1, (count, dim))])


def avec2016(root):
    kinds = {
        "audio": 88,
        "video_appearance": 5,
        "video_geometric": 6,
        "ECG": 3,
        "HRHRV": 2,
        "EDA": 2,
        "SCL": 2,
        "SCR": 2,
    }
    for split, number, dimension in itertools.product(("train", "dev", "test"), NUMBERS, ("arousal", "valence")):
        name = f"{split}_{number}"
        for kind, dim in kinds.items():
            if not (split == "test" and number == 2 and kind in ("EDA", "SCL", "SCR")):  # as test_7 in the challenge
                table = timed(50, 0.04, dim)
                if kind.startswith("video"):
                    table[3, 1:] = 0  # no face
                path = root / f"features_{kind}" / dimension / f"{name}.arff"
                arff(path, kind, ["frameTime", *(f"f{i}" for i in range(dim))], table)
        if split != "test":
            path = root / "ratings_gold_standard" / dimension / f"{name}.arff"
            arff(path, "GOLDSTANDARD", ["frameTime", "GoldStandard"], timed(50, 0.04, 1), name)


def avec2018(root):
    kinds = {"audio/eGeMAPSfunct": 88, "video/appearance": 5, "video/AU": 17, "physio/ECG": 3, "physio/HRHRV": 2}
    for split, number in itertools.product(("train", "dev", "test"), NUMBERS):
        name = f"{split}_{number}"
        for kind, dim in kinds.items():
            for size in ("3.0", "4.0"):
                path = root / "features" / kind / f"eGeMAPSv01a_{name}_{size}_0.4.arff"
                arff(path, kind, ["frameTime", *(f"f{i}" for i in range(dim))], timed(13, 0.4, dim), "'unknown'")
        for dimension in ("arousal", "valence") if split != "test" else ():
            path = root / "labels" / "gs_1" / dimension / f"{name}.arff"
            arff(path, "GOLDSTANDARD", ["frameTime", "GoldStandard"], timed(121, 0.04, 1), name)


def avec2019(root):
    audio = ("mfcc_functionals", "egemaps_functionals", "mfcc_xbow", "egemaps_xbow")
    folders = [*(f"audio_features_{one}" for one in audio), "visual_features_functionals", "visual_features_xbow"]
    for part, culture in (("Train", "DE"), ("Train", "HU"), ("Devel", "DE"), ("Devel", "HU"), ("Test", "CN")):
        name = f"{part}_{culture}_01"
        for folder in folders:  # no header, as openXBOW and the functionals' script write
            csv(root / folder / f"{name}.csv", [], timed(30, 0.1, 4), ";", f"'{name}'")
        if part != "Test":
            header = ["name", "timestamp", "arousal", "valence", "liking"]
            csv(root / "labels" / f"{name}.csv", header, timed(28, 0.1, 3), ";", f"'{name}'")


def avec2019_devel(root):
    audio = ("deepspectrum", "egemaps-func_STD", "egemaps-xbow", "mfcc-func_STD", "mfcc-xbow")
    systems = [*audio, *(f"visual-{one}" for one in ("func", "resnet", "vgg", "xbow"))]
    header = ["name", "timestamp", "arousal", "valence", "liking"]
    for name in ("Devel_DE_01", "Devel_HU_01"):
        for folder in ("labels_devel", *(f"predictions_{one}" for one in systems)):
            csv(root / folder / f"{name}.csv", header, timed(30, 0.1, 3), ";", f"'{name}'")


def muse2022(root):
    (root / "metadata").mkdir()
    (root / "metadata" / "partition.csv").write_text("Id,Proposal\n1,train\n2,train\n3,devel\n4,test\n")
    for name in "1234":
        times = np.arange(20) * 500.0
        for folder in ("egemaps", "deepspectrum", "vggface", "fau", "bert"):
            table = np.column_stack([times, np.ones(20), RNG.normal(size=(20, 4))])
            csv(root / "feature_segments" / folder / f"{name}.csv", ["timestamp", "segment_id", *"abcd"], table)
        for dimension in ("valence", "physio-arousal"):
            table = np.column_stack([times, np.ones(20), RNG.uniform(-1, 1, 20)])
            path = root / "label_segments" / dimension / f"{name}.csv"
            csv(path, ["timestamp", "segment_id", "value"], table)
            if name == "4":
                path.unlink()


def aff_wild2(root):
    for folder, names in (("Train_Set", ("1-30-1280x720", "2")), ("Validation_Set", ("3",)), ("", ("4",))):
        for name in names:
            for modality in ("audio", "visual"):
                (root / "features" / modality).mkdir(parents=True, exist_ok=True)
                np.save(root / "features" / modality / f"{name}.npy", RNG.normal(size=(60, 8)).astype(np.float32))
            if folder:
                labels = RNG.uniform(-1, 1, (60, 2))
                labels[5] = -5
                csv(root / "VA_Estimation_Challenge" / folder / f"{name}.txt", ["valence", "arousal"], labels)


def faces(kind):
    def written(root):
        for name in ("train_a", "dev_a"):
            csv(root / "labels" / f"{name}.csv", ["time", "valence", "arousal"], timed(20, 0.1, 2))
            path = root / "opensmile" / f"{name}.csv"
            csv(path, ["name", "frameTime", "F0", "loudness"], timed(200, 0.01, 2), ";", "'unknown'")
            frames, ones = np.arange(60), np.ones(60)
            if kind == "openface":
                header = "frame, face_id, timestamp, confidence, success, gaze_angle_x, gaze_angle_y, pose_Tx, pose_Rx,"
                header += " AU01_r, AU02_r, AU01_c"
                table = np.column_stack([frames + 1, 0 * ones, frames / 30, ones, ones, RNG.normal(size=(60, 7))])
                csv(root / "openface" / f"{name}.csv", header.split(","), table)
            else:
                emotions = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
                header = ["FaceRectX", "FaceScore", "Pitch", "Roll", "Yaw", "AU01", "AU02", *emotions, "frame"]
                table = np.column_stack([ones, ones, RNG.normal(size=(60, 12)), frames])
                csv(root / "py_feat" / f"{name}.csv", header, table)

    return written


SEWA_FEATURES = "mfcc_functionals egemaps_functionals mfcc_xbow egemaps_xbow visual_functionals visual_xbow"
SEWA_SYSTEMS = (
    "deepspectrum egemaps_func_std egemaps_xbow mfcc_func_std mfcc_xbow visual_func visual_resnet visual_vgg "
)
SEWA_SYSTEMS += "visual_xbow"
# The writer of each layout, the dimension of every stream, frames per recording, their rate, recordings by split.
LAYOUTS = {
    "avec2016": (
        avec2016,
        {
            "audio": 176,
            "video_appearance": 10,
            "video_geometric": 12,
            "ecg": 6,
            "hrhrv": 4,
            "eda": 4,
            "scl": 4,
            "scr": 4,
        },
        (50, 25.0, {"train": 2, "dev": 2, "test": 2}),
    ),
    "avec2016_av": (avec2016, {"audio": 176, "visual": 22}, (50, 25.0, {"train": 2, "dev": 2, "test": 2})),
    "avec2018": (
        avec2018,
        {"egemaps": 88, "appearance": 5, "au": 17, "ecg": 3, "hrhrv": 2},
        (13, 2.5, {"train": 2, "dev": 2, "test": 2}),
    ),
    "avec2019": (avec2019, dict.fromkeys(SEWA_FEATURES.split(), 4), (28, 10.0, {"train": 2, "dev": 2, "test": 1})),
    "avec2019_devel": (avec2019_devel, dict.fromkeys(SEWA_SYSTEMS.split(), 2), (30, 10.0, {"train": 2})),
    "muse2022": (
        muse2022,
        dict.fromkeys(("egemaps", "deepspectrum", "vggface", "fau", "bert"), 4),
        (20, 2.0, {"train": 2, "dev": 1, "test": 1}),
    ),
    "aff_wild2": (aff_wild2, {"audio": 8, "visual": 8}, (60, 30.0, {"train": 2, "dev": 1})),
    "openface": (faces("openface"), {"audio": 2, "visual": 5}, (20, 10.0, {"train": 1, "dev": 1})),
    "py_feat": (faces("py_feat"), {"audio": 2, "visual": 12}, (20, 10.0, {"train": 1, "dev": 1})),
}


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_reads_its_layout(tmp_path, name):
    write, dims, (frames, rate, splits) = LAYOUTS[name]
    write(tmp_path)
    corpus = Features(tmp_path, Options(preset=name))
    items = corpus.items()
    assert {stream["name"]: stream["dim"] for stream in corpus.card()["streams"]} == dims
    assert {split: sum(item.split == split for item in items) for split in {i.split for i in items}} == splits
    for item in items:
        (record,) = corpus.process(item)
        labelled = item.split != "test"
        assert record["fps"] == pytest.approx(rate, rel=1e-3)
        assert record["target_mask"].any() == labelled
        if labelled:
            assert len(record["time"]) == frames
            missing = {stream: float((~record[f"{stream}_mask"]).mean()) for stream in dims}
            assert max(missing.values()) <= 0.07, missing


def test_what_the_challenges_mark_as_missing_is_masked(tmp_path):
    avec2016(tmp_path / "avec")
    corpus = Features(tmp_path / "avec", Options(preset="avec2016"))
    records = {item.key: next(corpus.process(item)) for item in corpus.items()}
    np.testing.assert_array_equal(np.flatnonzero(~records["dev_1"]["video_appearance_mask"]), [3])
    assert records["dev_1"]["audio_mask"].all()
    assert not records["test_2"]["eda_mask"].any()
    assert records["test_2"]["ecg_mask"].all()
    aff_wild2(tmp_path / "aff")
    corpus = Features(tmp_path / "aff", Options(preset="aff_wild2"))
    record = next(corpus.process(corpus.items()[0]))
    np.testing.assert_array_equal(np.flatnonzero(~record["target_mask"]), [5])


@pytest.mark.data
def test_the_traces_of_sewa(real_data):
    source = real_data / "sewa_devel"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    corpus = Features(source, Options(preset="avec2019_devel"))
    items = corpus.items()
    assert [sum(item.payload["group"] == group for item in items) for group in ("DE", "HU")] == [14, 14]
    record = next(corpus.process(items[0]))
    given = np.loadtxt(source / "labels_devel" / "Devel_DE_01.csv", delimiter=";", skiprows=1, usecols=(3, 2))
    np.testing.assert_allclose(record["targets"], given, atol=1e-6)
    seen = np.loadtxt(source / "predictions_visual-vgg" / "Devel_DE_01.csv", delimiter=";", skiprows=1, usecols=(2, 3))
    np.testing.assert_allclose(record["visual_vgg"], seen[: len(given)], atol=1e-6)
