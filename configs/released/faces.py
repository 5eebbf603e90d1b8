"""Released: the face network on FER+, small enough to ship, trained to meet other cameras and detectors.

The trunk is MobileNet-v1 with VGGFace2 weights (`faceres-deep`), cut after 11 of its 13 blocks, at 48 px. It sees grey
pictures only, as FER+'s are. It learns from the raters' votes, so that a doubtful picture stays doubtful. Rare classes
weigh more in the loss, by about the root of their rarity; the calibration of the release takes that out again. Frame,
sharpness, light, noise and covering vary in every picture.

The rule of choice, written before the run: no choice between checkpoints but the moving average with the best dev/uar;
temperature and prior are fitted on dev. FER+'s validation part and RAVDESS's takes are scored once, for the model card.

    python launch.py train --config=configs/released/faces.py --workdir=runs/released/faces \\
        --config.data.faces=DATA/fer --config.model.init_from=WEIGHTS

Expected: see docs/models.md. Hardware: two CPU cores, an hour or two.

Variants: `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common
from configs.results import teacher

VARIANTS = ("", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = teacher.get_config("faces")
    config.steps, config.log_every, config.eval_every = 2600, 50, 650
    config.best_metric = "dev/uar"
    config.data.batch.faces = 64
    config.data.augment.update(crop=0.0, colour=0.0, zoom=0.2, blur=0.5, light=0.4, noise=0.2, erase=0.15)
    config.ema = 0.997
    config.optimizer.update(name="adamw", weight_decay=0.01)
    config.loss.class_weights = (0.6, 0.7, 1.0, 1.0, 2.5, 3.5, 1.2, 3.5)  # neutral … contempt
    config.model.update(blocks=11, grey=True)
    if variant == "smoke":
        config.data.batch.faces = config.data.eval_batch = 8
        return common.smoke(config)
    return config
