"""Fields that every experiment has.

Every config file declares its variants in `VARIANTS`, the default first; `configuration.load` refuses others.
"""

from ml_collections import ConfigDict


def base(task: str) -> ConfigDict:
    """Returns the loop, optimizer and input fields with neutral values."""
    return ConfigDict(
        {
            "task": task,
            "seed": 0,
            "steps": 1000,
            "log_every": 50,
            "eval_every": 500,  # evaluate and save; a multiple of log_every
            "eval_splits": ("dev",),
            "best_metric": "dev/accuracy",
            "parallel": "pmap",  # or shard_map
            "accumulate": 1,  # micro-batches per step, run one after another; the loss is that of the whole batch
            "steps_per_dispatch": "auto",  # steps that run in one program, or a number; auto: several if they are short
            "profile": 0,  # number of steps to trace for XProf from the third on, into the run's profile/; 0: none
            "ema": 0.0,  # decay of the moving average of weights and statistics, which is then evaluated; 0: none
            "optimizer": {
                "name": "sgd",  # sgd (Nesterov), adam, adamw
                "learning_rate": 5e-3,
                "schedule": "constant",  # constant, cosine, step
                "warmup": 0.0,  # share of all steps
                "momentum": 0.9,  # of sgd; adam and adamw accept no other value
                "weight_decay": 0.0,  # of sgd and adamw
                "clip_norm": 0.0,  # 0: no clipping
                "freeze": (),  # regular expressions; parameters with a matching path do not train
            },
            "data": {
                "threads": 2,  # that decode, in this process
                "workers": "auto",  # processes that decode in their place; auto: none on a CPU, otherwise cores - 1
                "prefetch": 8,
                "eval_batch": 64,
                "resident": "auto",  # where packed training data lies: device, host, or off (read from the shards)
            },
            "model": {},
            "loss": {},
        }
    )


def smoke(config: ConfigDict) -> ConfigDict:
    """The `:smoke` variant: one real step of the same networks."""
    config.steps = config.log_every = config.eval_every = 1
    return config
