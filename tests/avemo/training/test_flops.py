import jax
import jax.numpy as jnp

from avemo.training import flops


def test_flops_count_loops_as_often_as_they_run():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert flops.flops(jnp.dot, a, b) == 2 * 3 * 4 * 5

    def loop(x):
        return jax.lax.scan(lambda c, _: (c @ jnp.ones((3, 3)), None), x, None, length=7)[0]

    assert flops.flops(jax.jit(loop), jnp.ones((2, 3))) == 7 * 2 * 2 * 3 * 3
    image, kernel = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 6))
    convolve = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert flops.flops(convolve, image, kernel) == 2 * 8 * 8 * 6 * 3 * 3 * 2
