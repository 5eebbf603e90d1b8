"""Released: both experts by Bayes' rule. The voice and the face weigh one each, and nothing is learned.

The logits of both networks add as logarithms. The release calibrates them afterwards; its card says how much of the
prior is left. A fusion that learns would learn from the takes of one actor, and would be his. RAVDESS's takes give the
class names and the frame rate, and score the result.

    python launch.py extract --workdir=runs/released/faces,runs/released/speech --data=DATA/takes_split \\
        --output=FEATURES --layer=logits
    python launch.py train --config=configs/released/fusion.py --workdir=runs/released/fusion \\
        --config.data.features=FEATURES

Expected: see docs/models.md. Hardware: any, seconds.

Variants: `smoke` is the same; nothing trains.
"""

from ml_collections import ConfigDict

from configs import common
from configs.results import fusion

VARIANTS = ("", "smoke")

# Of RAVDESS's classes (neutral, calm, happy, sad, anger, fear, disgust, surprise) the number of FER+'s that speaks for
# it (neutral, happy, sad, surprise, fear, disgust, anger, contempt). A face cannot tell calm from neutral.
FACES = (0, 0, 1, 2, 6, 4, 5, 3)


def get_config(variant: str = "") -> ConfigDict:
    config = common.smoke(fusion.get_config(variant))
    config.best_metric = ""
    config.optimizer.update(name="adam", learning_rate=0.0, weight_decay=0.0)
    config.data.standardise = "off"
    config.model.update(fusion="experts", temporal="none", dropout=0.0, modality_dropout=0.0)
    config.model.fusion_args = {"audio_classes": tuple(range(8)), "visual_classes": FACES, "weights": (1.0, 1.0)}
    return config
