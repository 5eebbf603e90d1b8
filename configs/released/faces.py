"""Released: the face network on FER+, small enough to ship, trained to meet other cameras and detectors.

The trunk is MobileNet-v1 with VGGFace2 weights (`faceres-deep`), cut after 11 of its 13 blocks. It sees grey pictures
only, as FER+'s are. It learns from the raters' votes, so that a doubtful picture stays doubtful. Frame, sharpness,
light, noise and covering vary in every picture.

It learns three times, each time from the weights before. In the first run (`rare`) rare classes weigh more in the loss,
by about the root of their rarity, so that their features are learned. The second (`small`) has no class weights, so
that its answers are what the raters would say. Both see 48 px, FER+'s own size, and take half the time of the third,
which sees the pictures enlarged to 64 px: the trunk was made for larger faces. The calibration of the release then
takes part of the classes' shares back.

The rule of choice, written before each run: no choice between checkpoints but the moving average with the best dev/uar
(`rare`) and dev/accuracy; temperature and prior are fitted on dev. FER+'s validation part and RAVDESS's takes are
scored for the model card, and decide nothing.

    python launch.py train --config=configs/released/faces.py:rare --workdir=runs/released/faces_rare \\
        --config.data.faces=DATA/fer --config.model.init_from=WEIGHTS
    python launch.py train --config=configs/released/faces.py:small --workdir=runs/released/faces_small \\
        --config.data.faces=DATA/fer --config.model.init_from=runs/released/faces_rare
    python launch.py train --config=configs/released/faces.py --workdir=runs/released/faces \\
        --config.data.faces=DATA/fer --config.model.init_from=runs/released/faces_small

Expected: see docs/models.md. Hardware: two CPU cores, two to three hours.

Variants: `rare` and `small` are the first two runs; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.results import teacher

VARIANTS = ("", "small", "rare", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = teacher.get_config("faces")
    config.steps, config.log_every, config.eval_every = 7000, 50, 500
    config.best_metric = "dev/accuracy"
    config.data.batch.faces = 64
    config.data.augment.update(crop=0.0, colour=0.0, zoom=0.15, blur=0.3, light=0.3, noise=0.1, erase=0.15)
    config.ema = 0.997
    config.optimizer.update(name="adamw", weight_decay=0.01)
    config.model.update(blocks=11, grey=True, image_size=64)
    if variant in ("small", "rare"):
        config.steps, config.model.image_size = 5000, 48
    if variant == "rare":
        config.steps, config.eval_every = 2600, 650
        config.best_metric = "dev/uar"
        config.data.augment.update(zoom=0.2, blur=0.5, light=0.4, noise=0.2)
        config.loss.class_weights = (0.6, 0.7, 1.0, 1.0, 2.5, 3.5, 1.2, 3.5)  # neutral … contempt
    if variant == "smoke":
        config.data.batch.faces = config.data.eval_batch = 8
        return common.smoke(config)
    return config
