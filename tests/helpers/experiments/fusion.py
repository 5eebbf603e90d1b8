"""The demo's fusion without a recurrence, for tests of the loop, of run folders and of checkpoints.

It has dropout, so that a resumed run must also resume its random numbers; its three programs compile in a second.
"""

from ml_collections import ConfigDict

from configs.demo import fusion

VARIANTS = ("smoke",)


def get_config(variant: str = "smoke") -> ConfigDict:
    config = fusion.get_config(variant)
    config.data.update(sequence_length=20, sequence_hop=10, delay=0.0, eval_batch=8)
    config.model.update(fusion="concat", temporal="none")
    config.model.fusion_args.features = 8
    config.model.temporal_args = {}
    return config
