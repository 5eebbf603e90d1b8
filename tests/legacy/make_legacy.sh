#!/bin/bash
# Makes tests/legacy/legacy.tar.xz: data sets, runs and a release from commit 4b66667, before the modules moved.
#
#     git checkout 4b66667 && bash make_legacy.sh CHECKOUT [FOLDER]
#
# CHECKOUT is that commit's work tree with its .venv (`make test`); FOLDER is a scratch folder (default /tmp/avemo-legacy).
# Only public commands write the archive's contents: `python -m data_prep` and `launch.py train, extract, release`.
set -euo pipefail
ROOT=$(cd "$1" && pwd) FOLDER=${2:-/tmp/avemo-legacy}
PYTHON=$ROOT/.venv/bin/python
export PYTHONPATH=$ROOT JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES= JAX_COMPILATION_CACHE_DIR=$FOLDER/cache
# It spends far more time compiling than computing.
export XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
launch() { $PYTHON "$ROOT/launch.py" "$@"; }
prepare() { $PYTHON -m data_prep "$@" --output=data --workers=1 --quiet; }
rm -rf "$FOLDER/legacy" && mkdir -p "$FOLDER/legacy/configs" "$FOLDER/legacy/clip" && cd "$FOLDER/legacy"

# The source material: the synthetic corpus, cut into recordings of 1 to 1.6 s with periodic sound.
$PYTHON -m data_prep.synthetic --output=../corpus --recordings=4,2,1 --seconds=8 --size=144 --faces=40,24 --face-size=96 \
    --triplets=24,8 --pool=48,48 --unlabelled=12 --workers=1
cat > ../cut.py <<'PY'
"""Cuts the synthetic recordings: 5 frames per second, and tones with whole periods per log-mel row, which compress."""
import pathlib, shutil, sys

import av
import numpy as np

CORPUS, RATE = pathlib.Path(sys.argv[1]) / "recola" / "RECOLA-Video-recordings", 16000


def cut(name, out, begin, seconds, tone):
    with av.open(str(CORPUS / f"{name}.mp4")) as source:
        frames = [f.to_ndarray(format="rgb24") for f in source.decode(video=0)]
    frames = frames[int(25 * begin) : int(25 * (begin + seconds)) : 5]
    time = np.arange(int(seconds * RATE)) / RATE
    level = np.where(time < seconds / 2, 0.5, 0.1)
    sound = (32000 * level * np.sin(2 * np.pi * tone * time)).round().astype(np.int16)
    with av.open(str(out), "w") as sink:
        video = sink.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt, video.bit_rate = 144, 144, "yuv420p", 400_000
        audio = sink.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for image in frames:
            sink.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        sink.mux(video.encode())
        for at in range(0, len(sound), 800):
            frame = av.AudioFrame.from_ndarray(sound[None, at : at + 800], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, at
            sink.mux(audio.encode(frame))
        sink.mux(audio.encode())


# Name, split, seconds, tone. The traces of two raters follow the tone and the time.
TRACES = [("P16", "train", 1.6, 400), ("P21", "train", 1.6, 900), ("P23", "train", 1.6, 1500), ("P25", "train", 1.6, 600),
          ("P19", "dev", 1.6, 700), ("P26", "dev", 1.6, 1200), ("P13", "test", 1.2, 500)]
CLASSES = [("P16", "train", "happy", 500), ("P21", "train", "sad", 1100), ("P19", "dev", "happy", 600),
           ("P26", "dev", "sad", 1000)]
for folder in ("traces", "classes"):
    shutil.rmtree(folder, ignore_errors=True)
    pathlib.Path(folder).mkdir()
lines = ["file,time,valence,arousal,rater,subject,split"]
for name, split, seconds, tone in TRACES:
    cut(name, f"traces/{name}.mkv", 0.0, seconds, tone)
    for rater in (1, 2):
        for n in range(int(seconds * 10) + 1):
            t = n / 10
            valence, arousal = 0.6 * np.sin(3 * t + tone / 300 + 0.2 * rater), 0.5 * np.cos(4 * t + tone / 500) + 0.1 * rater
            lines.append(f"{name}.mkv,{t:.1f},{valence:.3f},{arousal:.3f},r{rater},{name},{split}")
pathlib.Path("traces/labels.csv").write_text("\n".join(lines) + "\n")
lines = ["file,label,subject,split"]
for name, split, label, tone in CLASSES:
    cut(name, f"classes/{name}.mkv", 4.0, 1.0, tone)
    lines.append(f"{name}.mkv,{label},{name},{split}")
pathlib.Path("classes/labels.csv").write_text("\n".join(lines) + "\n")
cut("P13", sys.argv[2], 4.0, 1.0, 800)
PY
(cd .. && $PYTHON cut.py corpus legacy/clip/clip.mkv)

# Data sets in ArrayRecord, and two in TFRecord.
prepare affectnet --source=../corpus/affectnet --name=faces --image_size=32 --max_items=10
prepare affectnet --source=../corpus/affectnet --name=faces_tfrecord --image_size=32 --max_items=2 --format=tfrecord
prepare fec --source=../corpus/fec --name=triplets --crop_size=32 --max_items=4
prepare unlabelled --source=../corpus/unlabelled --name=unlabelled --crop_size=32 --jpeg_quality=60 --max_items=2
prepare own --source=../traces --name=clips --crop_size=32 --jpeg_quality=60
prepare own --source=../classes --name=classes_tfrecord --crop_size=32 --jpeg_quality=60 --format=tfrecord

# Experiments with configs of their own: tiny networks, a few steps, paths relative to this folder.
cat > configs/common.py <<'PY'
from ml_collections import ConfigDict


def base(task, steps, metric, **fields):
    return ConfigDict({
        "task": task, "seed": 0, "steps": steps, "log_every": 2, "eval_every": steps, "eval_splits": ("dev",),
        "best_metric": metric, "parallel": "pmap", "accumulate": 1, "profile": 0, "ema": 0.0,
        "optimizer": {"name": "sgd", "learning_rate": 1e-3, "schedule": "constant", "warmup": 0.0, "momentum": 0.9,
                      "weight_decay": 0.0, "clip_norm": 0.0, "freeze": ()},
        "model": {}, "loss": {}, **fields,
        "data": {"threads": 1, "prefetch": 2, "eval_batch": 8, **fields["data"]},
    })


AUGMENT = {"flip": True, "crop": 0.1, "colour": 0.1, "erase": 0.0, "operations": 0, "magnitude": 0.0}
FACES = {"descriptor_dim": 8, "embedding_dim": 4, "num_classes": 8, "unit_norm_embedding": True, "bn_momentum": 0.9,
         "dtype": "float32", "freeze_trunk": False, "init_from": ""}
FACE_LOSS = {"fec_weight": 1.0, "ce_weight": 1.0, "margin": 0.2, "labels": "hard", "class_weights": (),
             "label_smoothing": 0.0}
TRACE_LOSS = {"per": "batch", "mse_weight": 0.0, "label_smoothing": 0.0}


def student(steps):
    return base(
        "student", steps, "dev/accuracy", teacher="runs/teacher",
        data={"faces": "data/faces", "triplets": "data/triplets", "unlabelled": "data/unlabelled",
              "batch": {"faces": 8, "triplets": 2, "unlabelled": 4}, "balanced": True, "augment": AUGMENT},
        model={"name": "compact", "image_size": 32, "width": 0.0625, "stages": 1, "last_features": 8, **FACES},
        loss={**FACE_LOSS, "distillation": {
            "logits": "kd", "kd_weight": 1.0, "temperature": 2.0, "dkd_alpha": 1.0, "dkd_beta": 8.0, "embedding": "l2",
            "embedding_weight": 1.0, "rkd_weight": 0.0}})


def fusion(features, metric, delay, **model):
    return base(
        "audiovisual", 4, metric,
        data={"features": features, "batch": {"sequences": 4}, "sequence_length": 4, "sequence_hop": 2, "delay": delay},
        model={"fusion_args": {}, "temporal_args": {"features": 4}, "num_classes": 0, "num_raters": 0,
               "dropout": 0.0, "modality_dropout": 0.0, "missing": "zero", "dtype": "float32", **model},
        loss=TRACE_LOSS)
PY
config() { # NAME EXPRESSION
    cat > "configs/$1.py" <<PY
import importlib.util, pathlib

spec = importlib.util.spec_from_file_location("legacy_common", pathlib.Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)


def get_config(variant=""):
    config = $2
    return config
PY
}
config teacher 'common.base("teacher", 4, "dev/accuracy", data={"faces": "data/faces", "triplets": "data/triplets",
        "batch": {"faces": 8, "triplets": 2}, "balanced": False, "augment": common.AUGMENT},
        model={"name": "compact", "image_size": 32, "width": 0.0625, "stages": 1, "last_features": 8,
               **common.FACES}, loss=common.FACE_LOSS)'
config student 'common.student(4)'
sed -i 's/^    return config/    config.optimizer.name = "adam"\n    return config/' configs/student.py
config audio 'common.base("audio", 4, "dev/ccc_mean", data={"clips": "data/clips", "batch": {"clips": 4}, "windows": 2,
        "window_hop": 0.2, "delay": 0.2, "augment": {"spec_shift": 0, "spec_time": 0, "spec_freq": 0}},
        model={"name": "vggish", "width": 0.015625, "fc_dim": 4, "embedding_dim": 4, "final_activation": "none",
               "dtype": "float32", "num_classes": 0, "init_from": ""}, loss=common.TRACE_LOSS)'
config fusion 'common.fusion("data/features", "dev/ccc_mean", 0.2, fusion="model_level",
        fusion_args={"features": 4, "encoder": "dense"}, temporal="gru")'
config emotions 'common.fusion("data/classes_features", "dev/uar", 0.0, fusion="concat", temporal="lstm", num_classes=8)'
# Its audio encoder is frozen.
config end_to_end 'common.base("end_to_end", 2, "dev/ccc_mean", fusion="runs/fusion", data={"clips": "data/clips",
        "batch": {"clips": 2}, "sequence_length": 4, "sequence_hop": 2, "delay": 0.2, "eval_batch": 2, "eval_frames": 8},
        model={"num_classes": 0, "dtype": ""}, loss=common.TRACE_LOSS)'
sed -i 's/^    return config/    config.optimizer.freeze = ("^audio\/",)\n    return config/' configs/end_to_end.py
# 32 steps, stopped on the way; the moving average of the weights is evaluated.
config unfinished 'common.student(32)'
cat >> configs/unfinished.py <<'PY'


def get_config(variant=""):
    config = common.student(32)
    config.eval_every, config.log_every, config.ema = 20, 4, 0.9
    config.optimizer.update(schedule="cosine", warmup=0.1, clip_norm=1.0)
    return config
PY

train() { launch train --config="configs/$1.py" --workdir="runs/$1"; }
train teacher
train student
train audio
launch extract --workdir=runs/student,runs/audio --data=data/clips --output=data/features
launch extract --workdir=runs/student,runs/audio --data=data/classes_tfrecord --output=data/classes_features
train fusion
train emotions
train end_to_end
launch release --workdir=runs/fusion --output=release/legacy.zip

# Send SIGTERM as soon as the first checkpoint is written; try again if the run ended or stopped at a logged step.
for attempt in $(seq 20); do
    rm -rf runs/unfinished
    $PYTHON "$ROOT/launch.py" train --config=configs/unfinished.py --workdir=runs/unfinished > ../unfinished.log 2>&1 &
    pid=$!
    until [ -d runs/unfinished/checkpoints/20 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.002; done
    kill -TERM $pid 2>/dev/null || true
    wait $pid || true
    tail -1 ../unfinished.log
    last=$(ls runs/unfinished/checkpoints 2>/dev/null | sort -n | tail -1)
    [ ! -e runs/unfinished/result.json ] && [ "${last:-0}" -gt 20 ] && [ $((last % 4)) != 0 ] && break
done
[ ! -e runs/unfinished/result.json ] && [ "$last" -gt 20 ]

ls runs/unfinished/checkpoints | sort -n | head -n -1 | sed 's#^#runs/unfinished/checkpoints/#' | xargs rm -r  # the last is enough
find . \( -name 'events.*' -o -name .lock -o -name card.html -o -name compilation_cache -o -name __pycache__ \) -print0 \
    | xargs -0 rm -rf
tar --sort=name --mtime=2000-01-01 --owner=0 --group=0 --numeric-owner -cf - . | xz -9e > ../legacy.tar.xz
ls -l ../legacy.tar.xz
