import csv
import dataclasses
import functools
import io
import json
import os
import pathlib

import av
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from avemo import predict
from avemo.data import shards
from avemo.evaluation import extract
from avemo.predict import command, face_tracks, fusion, overlay, recording, standard_input, stream
from avemo.predict.sound_windows import SoundWindows
from avemo.predict.trace import gaps
from avemo.runs import checkpoints, recorded_encoders
from avemo.tasks import audiovisual as task
from data_prep.clips import ClipOptions, clip_records
from helpers import films, tiny_runs, toy
from media import audio, records, video
from media.errors import UserError
from media.faces import FaceOptions, Follower
from media.images import resize

QUICK = ("csv", "json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    visual, audio_run = tiny_runs.visual(folder / "visual"), tiny_runs.audio(folder / "audio")
    return {
        "visual": visual,
        "audio": audio_run,
        "fusion": tiny_runs.fusion(folder / "fusion", visual, audio_run, films.FACES),
        "emotions": tiny_runs.fusion(folder / "emotions", visual, audio_run, films.FACES, num_classes=3),
    }


@pytest.fixture(scope="module")
def models(runs):
    return predict.open_models(runs["fusion"])


def away(time):
    """A film of a square that is absent from 0.8 s to 1.6 s."""
    return None if 0.8 <= time < 1.6 else (96 + 20 * np.sin(time), 64, 48 + 6 * np.sin(2 * time))


def table(folder):
    with (pathlib.Path(folder) / "trace.csv").open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


# ---- equal to training ----


@pytest.fixture(scope="module")
def gapped(tmp_path_factory):
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", seconds=3.0, squares=[away], sound=2.6)


@pytest.fixture(scope="module")
def features(gapped, runs):
    """The features that `data_prep` and `extract` make of the film."""
    (record,) = clip_records("a", options=ClipOptions(**films.FACES), picture=gapped)
    record["frames"] = shards.Images([frame.getvalue() for frame in record["frames"]], "a")
    encoders = (extract.open_encoder(runs["visual"]), extract.open_encoder(runs["audio"]))
    return {**record, **extract.encode_segment(record, *encoders)}


def whole(models, features):
    """The trace as `evaluate` computes it: the whole sequence at once."""
    _, _, variables = checkpoints.load(models.workdir)
    batch = {k: features[k][None] for k in ("visual", "audio", "visual_mask", "audio_mask")}
    batch["mask"] = np.ones(batch["visual_mask"].shape, bool)
    return jax.jit(functools.partial(task.apply, models.fusion.model, train=False))(variables, batch)


@pytest.mark.portable
def test_a_prediction_equals_extract_and_the_whole_sequence(models, gapped, features):
    trace = predict.analyse(models, recording.probe(gapped))
    np.testing.assert_allclose(trace.time, features["time"], atol=1e-6)
    np.testing.assert_array_equal(trace.face[0], features["visual_mask"])
    np.testing.assert_array_equal(trace.sound, features["audio_mask"])
    np.testing.assert_allclose(trace.box[0], features["face_box"], atol=1e-6)
    assert not trace.face.all()
    assert not trace.sound.all()
    expected = whole(models, features)
    assert np.asarray(expected["traces"]).std(1).min() > 1e-3  # the trace is not flat
    np.testing.assert_allclose(trace.values["traces"], expected["traces"], atol=1e-4)
    np.testing.assert_allclose(trace.values["gates"], expected["gates"], atol=1e-4)


@pytest.mark.parametrize("temporal", ["gru", "bigru"])
def test_pieces_equal_the_whole(temporal, runs, features, tmp_path, monkeypatch):
    workdir = tiny_runs.fusion(tmp_path / "run", runs["visual"], runs["audio"], temporal=temporal)
    config, _, variables = checkpoints.load(workdir)
    head = fusion.FusionNetwork(workdir, config, variables)
    assert head.streams == (temporal == "gru")
    monkeypatch.setattr(fusion, "CHUNK", 16)
    fused = fusion.FusionStream(head)
    batch = {k: features[k][None] for k in ("visual", "audio", "visual_mask", "audio_mask")}
    parts = []
    for begin in range(0, 75, 7):
        parts += fused.push({k: v[:, begin : begin + 7] for k, v in batch.items()})
    parts += fused.finish()
    expected, _ = head.apply(batch)
    np.testing.assert_allclose(np.concatenate([p["traces"] for p in parts], 1), expected["traces"], atol=1e-5)


def test_long_recordings_are_cut_into_windows_for_a_network_that_needs_the_whole(monkeypatch):
    monkeypatch.setattr(fusion, "WINDOW", 20)
    monkeypatch.setattr(fusion, "CONTEXT", 4)

    class Head:
        streams = False

        def __init__(self):
            self.seen = []

        def apply(self, batch, carry, length):
            self.seen.append(batch["x"][0, :, 0])
            return {"x": batch["x"]}, None

    head = Head()
    fused = fusion.FusionStream(head)
    x = np.arange(90.0)[None, :, None]
    parts = []
    for begin in range(0, 90, 7):
        parts += fused.push({"x": x[:, begin : begin + 7], "visual_mask": x[:, begin : begin + 7, 0] >= 0})
    parts += fused.finish()
    np.testing.assert_array_equal(np.concatenate([p["x"] for p in parts], 1), x)
    assert max(len(seen) for seen in head.seen) == 20
    given = 0
    for seen, part in zip(head.seen, parts, strict=True):  # inner windows have 4 more frames on each side
        first, last = part["x"][0, 0, 0], part["x"][0, -1, 0]
        assert first == given
        assert seen[0] <= max(0, first - 4)
        assert seen[-1] >= min(89, last + 4)
        given = last + 1


@pytest.mark.parametrize(("seconds", "start"), [(7.0, 0.0), (3.3, 0.7), (0.5, 0.0), (3.0, -0.4)])
def test_sound_in_pieces_has_the_windows_of_the_whole(seconds, start):
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    samples[16000:40000] = 0
    time = np.arange(0, 6, 0.04)
    sound = audio.analyse(iter([(start, samples)]))
    index, mask = audio.align(time, sound)
    rows, index = audio.window_rows(sound.log_mel, index, mask)
    expected = rows[index[mask][:, None] + np.arange(96)]
    out, masks, held = SoundWindows(), [], []
    cuts = np.sort(rng.integers(0, len(samples), 40))
    pieces = np.split(samples, cuts)
    for begin in range(0, len(time), 9):
        part = time[begin : begin + 9]
        while not out.settled(part[-1]):
            if not pieces:
                out.finish()
                break
            out.push(pieces.pop(0), start, block=700)
        windows, seen = out.windows(part)
        held.append(windows)
        masks.append(seen)
        assert len(out._rows) < 250  # rows of the past are dropped
    np.testing.assert_array_equal(np.concatenate(masks), mask)
    np.testing.assert_allclose(np.concatenate(held), expected, atol=1e-5)


# ---- what users pass in ----


def run_film(models, path, output, **options):
    return command.predict_file(models, path, output, stream.Options(**options), QUICK)


@pytest.mark.portable
def test_columns_and_summary(models, gapped, tmp_path):
    summary = run_film(models, gapped, tmp_path)
    rows = table(tmp_path)
    assert len(rows) == summary["frames"] == 75
    assert {"time", "valence", "arousal", "face_confidence", "x0", "y1", "audio_gate", "visual_gate"} <= set(rows[0])
    away = [row for row in rows if 0.9 <= float(row["time"]) < 1.5]
    assert all(row["face_present"] == "0" and row["x0"] == "" and row["valence"] for row in away)
    document = json.loads((tmp_path / "trace.json").read_text())
    assert document["faces"][0]["frames"]["valence"] == pytest.approx(list(column(rows, "valence")))
    assert document["faces"][0]["valence"] == pytest.approx(column(rows, "valence").mean(), abs=1e-4)
    assert document["duration"] == pytest.approx(3.0)
    assert os.listdir(tmp_path) == sorted(summary["files"]) or set(os.listdir(tmp_path)) == set(summary["files"])


def test_without_sound(models, tmp_path):
    run_film(models, films.film(tmp_path / "a.mp4", seconds=1), tmp_path / "out")
    rows = table(tmp_path / "out")
    assert {row["sound_present"] for row in rows} == {"0"}
    assert {row["face_present"] for row in rows} == {"1"}
    assert np.isfinite(column(rows, "valence")).all()


def test_sound_alone_gives_frames_at_the_rate_of_training(models, tmp_path):
    run_film(models, films.sound_file(tmp_path / "a.wav", 2.0), tmp_path / "out")
    rows = table(tmp_path / "out")
    (record,) = clip_records("a", options=ClipOptions(**films.FACES), sound=tmp_path / "a.wav")
    np.testing.assert_allclose(column(rows, "time"), record["time"], atol=1e-6)
    np.testing.assert_array_equal(column(rows, "sound_present"), record["audio_mask"])
    assert {row["face_present"] for row in rows} == {"0"}


def test_no_face_and_one_that_comes_late(models, tmp_path):
    run_film(models, films.film(tmp_path / "no.mp4", seconds=1, squares=[]), tmp_path / "no")
    assert {row["face_present"] for row in table(tmp_path / "no")} == {"0"}
    late = films.film(
        tmp_path / "late.mp4", times=np.arange(130) / 2, squares=[lambda t: (96, 64, 48) if t > 61 else None]
    )
    run_film(models, late, tmp_path / "late")
    rows = table(tmp_path / "late")
    seen = column(rows, "time")[column(rows, "face_present") == 1]
    assert seen.min() == pytest.approx(61.5)
    assert len(rows) == 130


def test_a_phones_rotation_is_applied(models, tmp_path):
    run_film(
        models, films.film(tmp_path / "a.mp4", seconds=0.6, squares=[films.still(40, 90)], rotation=90), tmp_path / "o"
    )
    document = json.loads((tmp_path / "o/trace.json").read_text())
    assert (document["width"], document["height"]) == (films.HEIGHT, films.WIDTH)
    box = table(tmp_path / "o")[5]
    x, y = (float(box["x0"]) + float(box["x1"])) / 2, (float(box["y0"]) + float(box["y1"])) / 2
    assert (x, y) == pytest.approx((90 / films.HEIGHT, 1 - 40 / films.WIDTH), abs=0.02)


def test_variable_frame_rate_keeps_the_times_of_the_frames(models, tmp_path):
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.1], 40))
    path = films.film(tmp_path / "a.mkv", times=times - times[0])
    trace = predict.analyse(models, recording.probe(path), stream.Options(fps=100))
    np.testing.assert_allclose(trace.time, times - times[0], atol=1.5e-3)


def test_a_faster_video_is_thinned_to_the_rate_of_training(models, tmp_path):
    path = films.film(tmp_path / "a.mp4", seconds=1, fps=50)
    assert np.diff(predict.analyse(models, recording.probe(path)).time) == pytest.approx(0.04, abs=2e-3)
    assert len(predict.analyse(models, recording.probe(path), stream.Options(fps=50))) == 50


def test_several_faces_have_a_trace_each(models, tmp_path):
    squares = [films.still(40, 64, 40), lambda t: (130 + 10 * t, 64, 56) if t < 1.2 else None]
    path = films.film(tmp_path / "two.mp4", seconds=2, squares=squares)
    run_film(models, path, tmp_path / "all", face="all")
    rows = table(tmp_path / "all")
    first, second = ([row for row in rows if row["face"] == n] for n in "01")
    assert len(rows) == 100
    assert np.nanmin(column(first, "x0")) > 0.5  # the larger one is number 0
    assert np.nanmax(column(second, "x1")) < 0.4
    assert column(first, "face_present").sum() < 40
    assert column(second, "face_present").all()
    assert not np.allclose(column(first, "valence"), column(second, "valence"))
    # Each person's trace equals the trace of that person alone.
    alone = films.film(tmp_path / "one.mp4", seconds=2, squares=squares[:1])
    run_film(models, path, tmp_path / "index", face="1")
    np.testing.assert_array_equal(column(table(tmp_path / "index"), "valence"), column(second, "valence"))
    follower = Follower(FaceOptions(**films.FACES))
    boxes = np.array([f.box for f in follower(video.decode(alone))])
    np.testing.assert_allclose(np.stack([column(second, n) for n in ("x0", "y0", "x1", "y1")], 1), boxes, atol=0.02)
    with pytest.raises(UserError, match="face number 5"):
        run_film(models, path, tmp_path / "none", face="5")
    assert not (tmp_path / "none").exists()


def test_a_face_that_comes_back_keeps_its_number(tmp_path):
    path = films.film(
        tmp_path / "a.mp4", seconds=3, squares=[lambda t: None if 0.5 < t < 2.2 else (60 if t < 1 else 140, 64, 40)]
    )
    rows = list(face_tracks.MultiFollower(FaceOptions(**films.FACES), 3)(video.decode(path)))
    seen = np.array([[face.mask for face in row] for row in rows])
    assert seen[:12, 0].all()
    assert seen[-12:, 0].all()
    assert not seen[:, 1:].any()


def test_emotions(runs, gapped, tmp_path):
    result = predict.predict(runs["emotions"], str(gapped), str(tmp_path / "fusion"), files=QUICK, progress=False)
    rows = table(tmp_path / "fusion")
    names = [f"p_{name}" for name in tiny_runs.CLASSES]
    np.testing.assert_allclose(sum(column(rows, name) for name in names), 1, atol=1e-5)
    assert "valence" not in rows[0]
    clip = result["faces"][0]["probabilities"]
    logits = np.log(np.stack([column(rows, name) for name in names], -1))
    expected = np.exp((logits - logits.mean(-1, keepdims=True)).mean(0))
    assert list(clip.values()) == pytest.approx(expected / expected.sum(), abs=1e-4)
    assert result["faces"][0]["label"] == max(clip, key=clip.get)
    # An encoder's run also answers alone, in the frames that show something.
    predict.predict(runs["visual"], str(gapped), str(tmp_path / "v"), files=QUICK, progress=False, **films.FACES)
    rows = table(tmp_path / "v")
    np.testing.assert_array_equal(np.isfinite(column(rows, names[0])), column(rows, "face_present") == 1)


# ---- several runs as one ----


@pytest.fixture(scope="module")
def others(runs, tmp_path_factory):
    """Runs to average with: another seed, and one that needs the whole sequence and has its own visual encoder."""
    folder = tmp_path_factory.mktemp("others")
    eyes = tiny_runs.visual(folder / "eyes", seed=5, image_size=48)
    whole = {"temporal": "bigru", "faces": films.FACES}
    return {
        "seed": tiny_runs.fusion(folder / "seed", runs["visual"], runs["audio"], films.FACES, seed=7),
        "eyes": tiny_runs.fusion(folder / "whole", eyes, runs["audio"], seed=8, **whole),
        "emotions": tiny_runs.fusion(folder / "e", runs["visual"], runs["audio"], films.FACES, seed=9, num_classes=3),
    }


def alone_in(run):
    return predict.Models((run,))


def test_an_ensemble_is_the_mean_of_its_runs_with_their_spread(runs, others, gapped, tmp_path):
    folders = [runs["fusion"], others["seed"], others["eyes"]]
    ensemble = predict.open_models(",".join(folders))
    alone = [predict.analyse(member, recording.probe(gapped)) for member in map(alone_in, ensemble.runs)]
    traces = np.stack([trace.values["traces"] for trace in alone])
    # An encoder that two runs share is opened, and run, once.
    assert ensemble.runs[0].visual is ensemble.runs[1].visual is not ensemble.runs[2].visual
    run_film(ensemble, gapped, tmp_path)
    rows = table(tmp_path)
    for k, name in enumerate(("valence", "arousal")):
        np.testing.assert_allclose(column(rows, name), traces[:, 0, :, k].mean(0), atol=1e-5)
        np.testing.assert_allclose(column(rows, f"{name}_spread"), traces[:, 0, :, k].std(0), atol=1e-5)
        assert column(rows, f"{name}_spread").min() > 1e-4
    gates = np.mean([trace.values["gates"] for trace in alone], axis=0)
    np.testing.assert_allclose(column(rows, "visual_gate"), gates[0, :, 1], atol=1e-5)
    assert json.loads((tmp_path / "trace.json").read_text())["run"]["workdir"] == "fusion,seed,whole"


def test_an_ensemble_of_emotions_averages_probabilities(runs, others, gapped, tmp_path):
    folders = [runs["emotions"], others["emotions"]]
    ensemble = predict.open_models(",".join(folders))
    alone = [predict.analyse(member, recording.probe(gapped)) for member in map(alone_in, ensemble.runs)]
    shares = np.stack([trace.values["probabilities"][0] for trace in alone])
    run_film(ensemble, gapped, tmp_path)
    rows = table(tmp_path)
    for k, name in enumerate(tiny_runs.CLASSES):
        np.testing.assert_allclose(column(rows, f"p_{name}"), shares.mean(0)[:, k], atol=1e-5)
        np.testing.assert_allclose(column(rows, f"p_{name}_spread"), shares.std(0)[:, k], atol=1e-5)


def test_an_ensemble_live(runs, others, gapped):
    ensemble = predict.open_models(",".join([runs["fusion"], others["seed"]]), batch_size=1)
    live, *alone = (predict.Predictor(models, sound=False) for models in (ensemble, *map(alone_in, ensemble.runs)))
    for frame, _ in zip(video.decode(gapped), range(3), strict=False):
        for predictor in (live, *alone):
            predictor.push(frame.image, frame.time)
    values = [predictor.latest().valence for predictor in alone]
    assert live.latest().valence == pytest.approx(np.mean(values), abs=1e-5)
    assert live.latest().spread[0] == pytest.approx(np.std(values), abs=1e-5)


def test_runs_that_cannot_be_averaged(runs):
    for names, text in ((("fusion", "emotions"), "their class_names differ"), (("fusion", "visual"), "their task")):
        with pytest.raises(UserError, match=text):
            predict.open_models(",".join(runs[name] for name in names))


@pytest.mark.data
def test_a_real_clip_has_the_features_of_training(models, runs, real_data):
    """GRID through YuNet: MPEG-1 whose sound and picture begin at different times."""
    options = FaceOptions("yunet", str(next((real_data / "weights").glob("*yunet*.onnx"))))
    clip = sorted((real_data / "grid").glob("*.mpg"))[0]
    trace = predict.analyse(models, recording.probe(clip), stream.Options(faces=options))
    assert trace.face.all()
    assert trace.sound.all()
    (record,) = clip_records("a", options=ClipOptions(**dataclasses.asdict(options)), picture=clip)
    np.testing.assert_allclose(trace.time, record["time"], atol=1e-6)
    np.testing.assert_allclose(trace.box[0], record["face_box"], atol=1e-6)
    np.testing.assert_array_equal(trace.sound, record["audio_mask"])
    images = shards.Images([frame.getvalue() for frame in record["frames"]], "a")
    faces = [resize(images.decode(i), models.visual.image_size) for i in range(len(trace))]
    windows = record["log_mel"][record["audio_index"][:, None] + np.arange(96)]
    batch = {"visual": models.visual(faces)["descriptor"][None], "audio": models.audio(windows)["embedding"][None]}
    batch |= {"visual_mask": trace.face, "audio_mask": trace.sound[None]}
    np.testing.assert_allclose(trace.values["traces"], models.fusion.apply(batch)[0]["traces"], atol=1e-4)


# ---- bad input ----


def truncated(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    return path


def remux(source, path, **options):
    """Copies the packets of a film into another mp4."""
    with av.open(str(source)) as film, av.open(str(path), "w", format="mp4", options=options) as out:
        copy = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)


CIPHER = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "7" * 32, "encryption_kid": "a" * 32}


def without_packets(path, codec, rate):
    """A container that declares a track but holds no packet of it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        if stream.type == "video":
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.start_encoding()


@pytest.mark.parametrize(
    "kind",
    ["text", "empty", "no index", "cut short", "encrypted", "absent", "no frame", "no sample"],
)
def test_bad_files_are_one_line_and_leave_nothing(kind, models, tmp_path):
    path = tmp_path / "a.mp4"
    if kind == "text":
        path.write_text("not a video" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "no index":
        truncated(films.film(path))
    elif kind == "cut short":  # with the index at the front, as in files for streaming
        remux(films.film(tmp_path / "b.mp4", seconds=4), path, movflags="faststart")
        truncated(path)
    elif kind == "no frame":
        path = tmp_path / "a.mp4.avi"
        without_packets(path, "mpeg4", 25)
    elif kind == "no sample":
        path = tmp_path / "a.mp4.wav"
        without_packets(path, "pcm_s16le", 16000)
    elif kind == "encrypted":
        remux(films.film(tmp_path / "b.mp4", seconds=1, codec="libx264"), path, **CIPHER)
    with pytest.raises(UserError) as error:
        run_film(models, path, tmp_path / "out")
    assert "a.mp4" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_continues_and_lists_what_failed(runs, tmp_path, monkeypatch):
    source = tmp_path / "in/deep"
    source.mkdir(parents=True)
    films.film(source / "a.mp4", seconds=0.4)
    films.film(source / "a.mkv", seconds=0.4)
    films.film(tmp_path / "in/b.avi", seconds=0.4)
    (tmp_path / "in/c.mov").write_text("nothing")
    closed = tmp_path / "in/closed"
    closed.mkdir()
    scandir = os.scandir

    def refused(path):  # file permissions do not stop root
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    (tmp_path / "in/notes.txt").write_text("not media")
    result = predict.predict(
        runs["fusion"], str(tmp_path / "in"), str(tmp_path / "out"), files=("csv",), progress=False
    )
    assert len(result["done"]) == 3
    assert [pathlib.Path(f["input"]).name for f in result["failed"]] == ["closed", "c.mov"]
    assert "Permission denied" in result["failed"][0]["error"]
    assert result["passed_over"] == ["notes.txt"]
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["b/trace.csv", "deep/a.mkv/trace.csv", "deep/a.mp4/trace.csv", "summary.json"]
    assert json.loads((tmp_path / "out/summary.json").read_text())["failed"] == result["failed"]


def test_a_write_that_fails_leaves_nothing_under_a_final_name(models, gapped, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(overlay, "write", full)
    with pytest.raises(UserError, match="No space left"):
        command.predict_file(models, gapped, tmp_path, files=("csv", "overlay"))
    assert not list(tmp_path.iterdir())


def test_runs_that_cannot_be_used(runs, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        predict.open_models(str(tmp_path))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((pathlib.Path(runs["fusion"]) / "config.json").read_text())
    with pytest.raises(UserError, match="no checkpoint yet"):
        predict.open_models(str(unfinished))
    with pytest.raises(UserError, match="task 'audio', not of teacher or student"):
        predict.open_models(runs["fusion"], visual=runs["audio"])
    other = tiny_runs.visual(tmp_path / "other", seed=9)
    card = pathlib.Path(runs["fusion"]) / "encoders.json"
    moved = tmp_path / "moved"
    moved.mkdir()
    for item in ("config.json", "checkpoints"):
        (moved / item).symlink_to(pathlib.Path(runs["fusion"]) / item)
    with pytest.raises(UserError, match="--visual=RUN --audio=RUN"):
        predict.open_models(str(moved))
    changed = json.loads(card.read_text())
    changed["visual"]["workdir"] = other
    (moved / "encoders.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="other weights"):
        predict.open_models(str(moved))
    changed["visual"]["workdir"] = "/nowhere/gone"
    (moved / "encoders.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="--visual=RUN"):
        predict.open_models(str(moved))
    assert predict.open_models(str(moved), visual=runs["visual"]).visual.dim == 128


@pytest.mark.parametrize("change", ["lacks", "does not fit"])
def test_a_config_of_another_version(change, runs, tmp_path):
    for item in os.listdir(runs["visual"]):
        if item != "config.json":
            (tmp_path / item).symlink_to(pathlib.Path(runs["visual"]) / item)
    config = json.loads((pathlib.Path(runs["visual"]) / "config.json").read_text())
    if change == "lacks":
        del config["model"]["image_size"]
    else:
        config["model"]["name"] = "squeezenet"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"{change}.*another version of avemo"):
        predict.open_models(str(tmp_path))


def test_a_run_remembers_which_encoders_made_its_features(runs, tmp_path):
    row = {
        "recording": "a",
        "subject": "a",
        "fps": 12.5,
        "time": np.zeros(2, np.float32),
        "label": -1,
        **{k: np.zeros((2, 4), np.float32) for k in ("visual", "audio")},
        **{k: np.ones(2, bool) for k in ("visual_mask", "audio_mask", "target_mask")},
        "targets": np.zeros((2, 2), np.float32),
        "raters": np.zeros((2, 1, 2), np.float32),
    }
    features = pathlib.Path(toy.write(tmp_path, "features", records.extracted_features(4, 4), {"train": [row]}))
    clips = tmp_path / "clips/own/1.0.0"
    clips.mkdir(parents=True)
    (clips / "features.json").write_text("{}")
    arguments = {**films.FACES, "corpus": "own", "fps": 12.5, "max_frames": 100}
    (clips / "card.json").write_text(json.dumps({"arguments": arguments}))
    made_by = {m: {"workdir": runs[m], "fingerprint": "f"} for m in ("visual", "audio")}
    for folder in (clips, clips.parent):  # as passed to extract: the data set, or a folder above
        (features / "extract.json").write_text(json.dumps({"clips": str(folder), **made_by}))
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        recorded_encoders.record(run, features)
        found = recorded_encoders.resolve(run, ConfigDict({"data": {}}))
        assert (found.visual, found.audio, found.fps) == (runs["visual"], runs["audio"], 12.5)
        assert found.faces == FaceOptions(**films.FACES)
        assert found.fingerprints == {"visual": "f", "audio": "f"}
    # A run older than this file finds them through its config's features, while these exist.
    (run / "encoders.json").unlink()
    assert recorded_encoders.resolve(run, ConfigDict({"data": {"features": str(features)}})).audio == runs["audio"]


def test_options_that_cannot_work(runs, gapped, tmp_path):
    for options, text in (
        ({"face": "biggest"}, "--face"),
        ({"face": "99"}, "at most 8"),
        ({"files": ("cvs",)}, "csv"),
        ({"detector": "yunet", "detector_model": "gone.onnx"}, "detector_model"),
        ({"detector": "nosuch"}, "Known"),
        ({"causal": True}, "--input=-"),
        ({"audio_track": -2}, "--audio_track"),
        ({"max_megapixels": 0.0}, "--max_megapixels"),
    ):
        with pytest.raises(UserError, match=text):
            predict.predict(runs["fusion"], str(gapped), str(tmp_path / "o"), **options)


# ---- live ----


def test_live_equals_the_file(runs, gapped):
    """With detection on every frame, pushed frames and samples give the file's trace."""
    models = predict.open_models(runs["fusion"])
    faces = dataclasses.replace(models.faces, detect_every=1)
    expected = predict.analyse(models, recording.probe(gapped), stream.Options(faces=faces))
    parts = list(audio.without_gaps(audio.decode(gapped)))
    samples, start = np.concatenate([p for _, p in parts]), parts[0][0]
    got, heard = [], 0
    with predict.Predictor(runs["fusion"]) as live:
        for frame in video.decode(gapped):
            until = min(len(samples), round((frame.time + 0.3) * 16000))
            live.push_audio(samples[heard:until], start)
            heard = until
            live.push(frame.image, frame.time)
            got += live.drain()
        live.push_audio(samples[heard:])
    got += live.drain()
    assert live.latest() == got[-1]
    assert len(got) == 75
    assert set(live.latency()) == {"median", "p95", "longest"}
    np.testing.assert_array_equal([e.face for e in got], expected.face[0])
    # The end of a live stream is unknown until it is closed, so the last second may have been estimated before that.
    np.testing.assert_allclose([[e.valence, e.arousal] for e in got], expected.values["traces"][0], atol=1e-4)


def test_a_causal_window_waits_for_no_sound(runs, gapped):
    with predict.Predictor(predict.open_models(runs["fusion"], batch_size=1), causal=True) as live:
        with pytest.raises(UserError, match="uint8"):
            live.push(np.zeros((4, 4)), 0.0)
        for number, frame in enumerate(video.decode(gapped)):
            live.push_audio(np.full(640, 0.1 * (-1) ** number, np.float32))
            live.push(frame.image, frame.time)
            assert live.latest().time == frame.time
            if number == 12:
                break
        with pytest.raises(UserError, match="must increase"):
            live.push(frame.image, frame.time)
        assert live.latest().sound


def test_a_pipe(runs, tmp_path):
    path = films.film(tmp_path / "a.mkv", seconds=1.2, sound=1.2)
    lines = []
    models = predict.open_models(runs["fusion"], batch_size=1)
    with path.open("rb") as file:
        result = standard_input.predict_pipe(models, file, str(tmp_path / "out"), stream.Options(), emit=lines.append)
    assert result["frames"] == len(lines) == 30
    assert {"trace.csv", "trace.json", "trace.png"} == set(result["files"])
    faces = dataclasses.replace(models.faces, detect_every=1)
    expected = predict.analyse(models, recording.probe(path), stream.Options(faces=faces))
    rows = table(tmp_path / "out")
    np.testing.assert_allclose(column(rows, "valence"), expected.values["traces"][0, :, 0], atol=1e-4)
    assert json.loads(lines[3])["time"] == pytest.approx(0.12, abs=2e-3)


class Broken(Exception):
    """A fault in the program, not in the video."""


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("of ours"), Broken()])
def test_a_fault_outside_the_decoder_is_not_blamed_on_the_pipe(error, runs, tmp_path):
    """A closed standard output, or a bug, is reported as such."""
    path = films.film(tmp_path / "a.mkv", seconds=0.4)

    def emit(line):
        raise error

    models = predict.open_models(runs["fusion"], batch_size=1)
    with path.open("rb") as file, pytest.raises(type(error)):
        standard_input.predict_pipe(models, file, str(tmp_path / "out"), stream.Options(), emit=emit)


@pytest.mark.parametrize("kind", ["text", "empty", "cut short"])
def test_a_bad_pipe_is_one_line(kind, runs, tmp_path):
    path = films.film(tmp_path / "a.mkv", seconds=0.4)
    content = {"text": b"not a video" * 100, "empty": b"", "cut short": path.read_bytes()[:300]}[kind]
    models = predict.open_models(runs["fusion"], batch_size=1)
    with pytest.raises(UserError, match="the pipe") as error:
        standard_input.predict_pipe(models, io.BytesIO(content), str(tmp_path / "out"), stream.Options())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "checkpoint"), ValueError("of ours"), Broken()])
def test_a_fault_outside_the_decoder_is_not_blamed_on_the_file(error, models, gapped, tmp_path, monkeypatch):
    def session(models, persons):
        raise error

    monkeypatch.setattr(stream, "Session", session)
    with pytest.raises(type(error)):
        run_film(models, gapped, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gaps_are_stretches_of_time():
    present = np.array([False, True, True, False, False])
    assert gaps(np.arange(5) / 10, present, 0.1) == [(0.0, 0.1), pytest.approx((0.3, 0.5))]


def test_a_run_of_other_streams_predicts_no_video(tmp_path):
    config = ConfigDict({"task": "audiovisual", "steps": 1, "data": {}, "model": {"streams": "voice,face"}})
    run = tiny_runs.saved(tmp_path / "run", config, {"params": {"x": np.zeros(1, np.float32)}}, ())
    with pytest.raises(UserError, match="reads the streams voice, face, which were not made by encoders of avemo"):
        predict.open_models(run)
