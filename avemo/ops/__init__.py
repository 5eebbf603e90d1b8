"""Operations tuned for XLA: what concerns compilers and devices, not the paper."""
