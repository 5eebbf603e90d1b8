"""Training losses: pure functions of arrays and masks, each returning one float32 scalar, the *global* loss.

**Over devices: differentiate, then `pmean`.** Inside a function that is mapped over devices, every sum, count and
moment is summed over the devices before it is divided (`avemo.ops.device_axis`), so each device returns the loss of the
whole batch, on any number of devices. Outside one, a loss is that of the batch it is given. The transpose of `psum` is
`psum`, so what `jax.grad` returns on one of `n` devices is the gradient of the sum of all devices' (equal) losses with
respect to the local use of the parameters: `n` times this device's share. Therefore

    loss, gradient = jax.value_and_grad(global_loss)(parameters, local_batch)
    gradient = device_axis.pmean(gradient)

is exactly the single-device gradient; `psum` would be `n` times too large. This holds for `jax.pmap` and for
`jax.shard_map` with `check_vma` off or on (tests/avemo/losses/test_losses.py, 8 devices against 1).

Conventions: inputs of any float dtype are computed in float32. A mask or weight of 0 removes an entry, whose value may
then be anything, NaN included. A mean over no entries is 0 with a zero gradient.
"""

from avemo.losses.classification import cross_entropy, vote_kl
from avemo.losses.concordance import ccc
from avemo.losses.distillation import dkd, embedding_distance, kd, rkd, rkd_angle, rkd_distance
from avemo.losses.metric_learning import squared_distance, triplet, triplet_distances
from avemo.losses.traces import ccc_loss, rater_ccc_loss
from avemo.ops.reductions import weighted_mean

__all__ = [
    "ccc",
    "ccc_loss",
    "cross_entropy",
    "dkd",
    "embedding_distance",
    "kd",
    "rater_ccc_loss",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "squared_distance",
    "triplet",
    "triplet_distances",
    "vote_kl",
    "weighted_mean",
]
