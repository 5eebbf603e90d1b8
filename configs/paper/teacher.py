"""Teacher: facial expression, trained jointly on AffectNet and Google FEC (arXiv 2103.09154, visual extractor).

FaceNet Inception-ResNet-v1 up to `mixed_7a`, a dense block and two heads: 15,556,008 parameters at 140 px. Figure and
algorithm are known second hand, from a thesis that re-implements them (S). What no source states is assumed (A).

Expected: about 61.3 % on AffectNet's eight classes (S). Not measured here: both corpora need a licence.
Hardware: estimated at one TPU v3-8 or two GPUs of 16 GB (64 faces and 64 triplets per batch at 140 px).

    python -m avemo.models.pretrained facenet_vggface2 --file=20180402-114759-vggface2.pt --output=weights/facenet
    python launch.py train --config=configs/paper/teacher.py --workdir=runs/teacher \\
        --config.data.faces=DATA/affectnet --config.data.triplets=DATA/fec --config.model.init_from=weights/facenet

Variants: `v5e` computes in bfloat16 on larger batches, because memory traffic limits a TPU; `smoke` trains one step.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = ("", "v5e", "smoke")


def get_config(variant: str = "") -> ConfigDict:
    config = common.base("teacher")
    config.steps = 13 * 287_651 // 64  # 13 epochs of AffectNet (S)
    config.log_every, config.eval_every = 100, 2000
    config.optimizer.name = "sgd"  # A: the thesis's text says Adam, its code SGD with Nesterov momentum
    config.optimizer.learning_rate = 5e-3  # S
    config.data.update(
        {
            "faces": "",
            "triplets": "",
            "batch": {"faces": 64, "triplets": 64},  # S: batch 64 of each
            "balanced": False,  # True: every class equally often; loss.class_weights is the alternative
            "augment": {
                "flip": True,
                "crop": 0.1,
                "colour": 0.1,  # A
                "erase": 0.0,  # probability of random erasing
                "operations": 0,
                "magnitude": 0.0,  # RandAugment: number of operations, and the share of their range
            },
        }
    )
    config.model = {
        "name": "inception_resnet_v1",
        "image_size": 140,  # S
        "width": 1.0,
        "repeats_35": 5,
        "repeats_17": 10,
        "neck_channels": 512,
        "dense_layers": 5,
        "dense_growth": 64,
        "dense_bottleneck": 4,  # S
        "descriptor_dim": 128,
        "embedding_dim": 32,
        "num_classes": 8,  # S
        "unit_norm_embedding": True,  # A: FECNet's convention
        "bn_momentum": 0.9,  # A
        "dtype": "auto",  # bfloat16 on an accelerator, float32 on a CPU (docs/precision.md)
        "freeze_trunk": False,
        "init_from": "",  # VGGFace2 weights (S), see above
    }
    config.loss = {
        "fec_weight": 1.0,
        "ce_weight": 0.1,  # S: L = L_FEC + 0.1 CE
        "margin": 0.2,  # S: the same for all types; FECNet has (0.1, 0.2, 0.2) by type
        "labels": "hard",  # or "votes": KL to the raters' distribution
        "class_weights": (),
        "label_smoothing": 0.0,
    }
    if variant == "v5e":  # eight chips, 96 pictures each (docs/cloud_tpu.md); the learning rate is not tuned for it
        config.model.dtype = "bfloat16"
        config.data.batch = {"faces": 192, "triplets": 192}
        config.steps = 13 * 287_651 // 192
    if variant == "smoke":
        config.data.batch = {"faces": 8, "triplets": 8}
        config.data.eval_batch = 8
        return common.smoke(config)
    return config
