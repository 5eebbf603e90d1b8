"""The generated corpus: layouts, reproducibility, and content that matches its labels."""

import collections
import csv
import hashlib
import urllib.parse
import urllib.request

import av
import cv2
import numpy as np
import pytest
import soundfile

from data_prep.annotations import ccc
from data_prep.synthetic import Settings, expression, generate, latent, raters, recording, stills, voice
from data_prep.synthetic.__main__ import main
from data_prep.synthetic.face import Pose
from data_prep.synthetic.identity import Identity
from data_prep.synthetic.scene import Scene
from media import faces
from media.errors import UserError

SMALL = Settings(
    recordings=(1, 1, 1),
    seconds=8,
    size=128,
    faces=(40, 16),
    face_size=128,
    triplets=(40, 16),
    pool=(64, 48),
    unlabelled=6,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The small corpus, made in this process."""
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    return folder, generate(folder, SMALL, workers=1)


def _digests(folder):
    own = folder.as_uri().encode()
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes().replace(own, b"HERE")).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_bytes_again_whatever_the_number_of_workers(corpus, tmp_path):
    folder, _ = corpus
    generate(tmp_path / "again", SMALL, workers=2)
    assert _digests(tmp_path / "again") == _digests(folder)


def test_second_call_does_nothing_and_other_settings_are_refused(corpus, monkeypatch):
    folder, manifest = corpus
    monkeypatch.setattr("data_prep.synthetic.corpus._fill", None)  # would fail if it were called
    assert generate(folder, SMALL) == manifest
    with pytest.raises(UserError, match=r"other settings \(seed 0 there, 3 asked\)"):
        generate(folder, SMALL, seed=3)


def test_refuses_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a finished synthetic corpus"):
        generate(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        generate(tmp_path / "corpus", SMALL, workers=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"recordings": (10, 1, 1)}, {"seconds": 1}, {"size": 97}, {"pool": (5, 48)}, {"delay": -1.0}]
)
def test_settings_out_of_range_are_named(change):
    with pytest.raises(UserError, match=next(iter(change))):
        Settings(**change)


def test_command_line(corpus, capsys, tmp_path):
    folder, _ = corpus
    arguments = ["--recordings=1,1,1", "--seconds=8", "--size=128", "--faces=40,16", "--face-size=128"]
    arguments += ["--triplets=40,16", "--pool=64,48", "--unlabelled=6"]
    assert main([f"--output={folder}", *arguments]) == 0
    assert "rater ceiling, valence" in capsys.readouterr().out
    assert main([f"--output={tmp_path / 'x'}", "--recordings=9,5"]) == 2
    assert "--recordings: 3 numbers" in capsys.readouterr().err


def test_recola_layout(corpus):
    folder, manifest = corpus
    assert manifest["participants"] == {"train": [16], "dev": [19], "test": [13]}
    root = folder / "recola"
    for name in ("P16", "P19", "P13"):
        tables = {}
        for dimension in ("arousal", "valence"):
            path = root / "RECOLA-Annotation" / "emotional_behaviour" / dimension / f"{name}.csv"
            assert path.read_text().splitlines()[0] == "time;FM1 ;FM2 ;FM3 ;FF1 ;FF2 ;FF3"
            tables[dimension] = np.genfromtxt(path, delimiter=";", skip_header=1)
            np.testing.assert_allclose(tables[dimension][:, 0], np.arange(201) * 0.04, atol=1e-9)
            assert np.abs(tables[dimension][:, 1:]).max() <= 1
        truth = np.genfromtxt(root / "synthetic_truth" / f"{name}.csv", delimiter=",", names=True)
        for dimension, table in tables.items():  # every rater follows the truth, 1 s late
            for rater in table[:, 1:].T:
                assert np.corrcoef(truth[dimension][:-25], rater[25:])[0, 1] > 0.6
        sound, rate = soundfile.read(root / "RECOLA-Audio-recordings" / f"{name}.wav")
        assert (rate, sound.shape) == (16000, (8 * 16000,))
        with av.open(str(root / "RECOLA-Video-recordings" / f"{name}.mp4")) as video:
            assert video.streams.video[0].codec_context.name == "h264"
            assert video.streams.audio[0].codec_context.name == "aac"
            assert video.streams.video[0].average_rate == 25
            stamps = [frame.time for frame in video.decode(video=0)]
        np.testing.assert_allclose(stamps, np.arange(200) * 0.04, atol=1e-6)


def test_sound_of_video_and_wav_agree(corpus):
    root = corpus[0] / "recola"
    wav, _ = soundfile.read(root / "RECOLA-Audio-recordings" / "P16.wav")
    with av.open(str(root / "RECOLA-Video-recordings" / "P16.mp4")) as video:
        blocks = [(frame.time, frame.to_ndarray()[0]) for frame in video.decode(audio=0)]
    assert blocks[0][0] == 0  # the edit list removes the encoder's priming
    sound = np.concatenate([block for _, block in blocks])[: len(wav)]
    assert np.corrcoef(sound, wav)[0, 1] > 0.95


def test_pauses_are_silent_and_arousal_is_heard():
    shown = np.zeros((1000, 2))
    speaker = voice.Speaker.sample(latent.stream(0, "someone"), deep=True)

    def level(arousal):
        track = np.full_like(shown, arousal) * [0, 1]
        said = voice.plan(latent.stream(0, "words"), track, speaker.tempo)
        sound = voice.synthesise(latent.stream(0, "air"), speaker, said, track)
        assert np.abs(sound).max() < 1
        power = (sound.reshape(-1, voice.HOP) ** 2).mean(axis=1)
        quiet, loud = power[~said.speaking], power[said.speaking]
        assert 10 * np.log10(loud.mean() / np.median(quiet)) > 20
        return 10 * np.log10(loud.mean())

    assert level(0.8) - level(-0.8) > 6


def test_affectnet_layout(corpus):
    root = corpus[0] / "affectnet"
    for split, count in (("train", 40), ("val", 16)):
        folder = root / f"{split}_set"
        pictures = sorted((folder / "images").iterdir())
        assert len(pictures) == count
        assert len(list((folder / "annotations").iterdir())) == 4 * count
        for path in pictures:
            assert cv2.imread(str(path)).shape == (128, 128, 3)
            scalars = {k: np.load(folder / "annotations" / f"{path.stem}_{k}.npy") for k in ("exp", "val", "aro")}
            assert all(value.dtype.kind == "U" for value in scalars.values())
            assert 0 <= int(str(scalars["exp"])) <= 10
            for key in ("val", "aro"):
                value = float(str(scalars[key]))
                assert value == -2 or -1 <= value <= 1
            assert np.load(folder / "annotations" / f"{path.stem}_lnd.npy").shape == (136,)
    labels = collections.Counter(
        int(str(np.load(path))) for path in (root / "val_set" / "annotations").glob("*_exp.npy")
    )
    assert labels == dict.fromkeys(range(8), 2)


def test_affectnet_training_labels_keep_the_order_of_the_counts():
    counts = np.bincount(stills.affectnet_labels(0, "train", 20000), minlength=11)
    assert counts[8:].sum() > 0
    np.testing.assert_array_equal(np.argsort(-counts[:4]), np.argsort(-stills.AFFECTNET_COUNTS[:4]))


def test_fec_layout_and_votes(corpus):
    root = corpus[0] / "fec"
    kinds = collections.Counter()
    for split, count in (("train", 40), ("test", 16)):
        rows = list(csv.reader((root / f"faceexp-comparison-data-{split}-public.csv").read_text().splitlines()))
        assert len(rows) == count
        for row in rows:
            kinds[row[15]] += 1
            votes = [int(vote) for vote in row[17::2]]
            assert len(votes) in (5, 6)
            assert set(votes) <= {1, 2, 3}
            for k in range(3):
                path = urllib.request.url2pathname(urllib.parse.urlparse(row[5 * k]).path)
                assert path.startswith(str(root))
                assert cv2.imread(path) is not None
                left, right, top, bottom = map(float, row[5 * k + 1 : 5 * k + 5])
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1
    assert set(kinds) == {"ONE_CLASS_TRIPLET", "TWO_CLASS_TRIPLET", "THREE_CLASS_TRIPLET"}


def test_similar_pair_is_more_alike_and_most_annotators_say_so():
    rows = stills.draw_triplets(0, "train", 200, 120)
    agreeing = []
    for three, odd, _, votes in rows:
        faces = [stills.pool_face(0, "train", number)[0] for number in three]
        pair, (i, j) = [k for k in range(3) if k != odd], (0, 1)
        near = expression.distance(faces[pair[i]], faces[pair[j]])
        assert near <= stills.SIMILAR * min(expression.distance(faces[p], faces[odd]) for p in pair)
        agreeing.append(np.mean(np.array(votes) == odd + 1))
    assert 0.7 < np.mean(agreeing) < 0.95
    assert 0.6 < np.mean(np.array(agreeing) >= 2 / 3) < 1.0  # some are too close to call


def test_splits_share_nobody(corpus):
    people = [Identity.sample(latent.stream(0, f"P{n}", "identity")) for ids in recording.SPLITS.values() for n in ids]
    assert len({person.texture for person in people}) == 27


@pytest.mark.parametrize("detector", ["haar", "yunet"] if faces.has_haar() else ["yunet"])
def test_detector_finds_faces_and_nothing_else(detector):
    detect = faces.DETECTORS[detector](faces.FaceOptions(detector=detector))
    found, hidden = [], []
    for person in range(12):
        rng = latent.stream(7, "person", person)
        scene = Scene(rng, Identity.sample(rng), 176)
        for label in range(0, 8, 2):
            face, _ = expression.sample(rng, label)
            for away, cover, gone, hits in ((0, 0, 0, found), (1, 0, 0, hidden), (0, 1, 0, hidden), (0, 0, 1, hidden)):
                picture = scene.render(face, Pose(), tilt=rng.normal(0, 0.05), away=away, cover=cover, gone=gone)
                hits.append(len(detect(picture)) > 0)
    assert np.mean(found) >= 0.97
    assert np.mean(hidden) <= 0.05


def test_landmarks_lie_on_the_drawn_features():
    rng = latent.stream(3, "landmarks")
    scene = Scene(rng, Identity.sample(rng), 176, noise=0)
    neutral = scene.render(expression.make(), Pose(), tilt=0.1)
    points = scene.landmarks()
    assert points.shape == (68, 2)
    assert points[8, 1] == points[:, 1].max()  # the chin
    eyes = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    assert np.arctan2(*(eyes[1] - eyes[0])[::-1]) == pytest.approx(0.1, abs=0.03)
    changed = scene.render(expression.make(mouth_open=1.0), Pose(), tilt=0.1)
    x, y = points[48:].mean(axis=0).astype(int)
    assert (
        np.abs(changed[y - 3 : y + 12, x - 6 : x + 6].astype(int) - neutral[y - 3 : y + 12, x - 6 : x + 6]).mean() > 30
    )


def test_smooth_noise_has_unit_variance_and_its_timescale():
    noise = latent.smooth_noise(latent.stream(0, "noise"), 200_000, timescale=1.0)
    assert noise.var() == pytest.approx(1, abs=0.1)
    for seconds in (0.5, 2.0):
        lag = round(seconds * latent.FPS)
        measured = np.mean(noise[lag:] * noise[:-lag]) / noise.var()
        assert measured == pytest.approx((1 + seconds) * np.exp(-seconds), abs=0.05)


def test_concordance_by_hand_and_ceiling():
    assert ccc(np.array([0.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(2 * (2 / 3) / (4 / 3 + 1))
    truth = [latent.affect(latent.stream(0, n), 2000) for n in range(3)]
    panels = [raters.Panel(delay=1.0).rate(latent.stream(1, n), t) for n, t in enumerate(truth)]
    limits = raters.ceiling(truth, panels, 1.0)
    for values in limits.values():
        assert values["gold_vs_latent"] > 0.95
        assert values["gold_vs_latent"] > values["gold_vs_latent_uncompensated"] + 0.02
        assert 0.8 < values["leave_one_rater_out"] < values["gold_vs_latent"]
