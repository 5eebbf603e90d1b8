"""The networks, as pure Flax (linen) modules."""
