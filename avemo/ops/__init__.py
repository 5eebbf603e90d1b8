"""Operations tuned for XLA: what is about compilers and devices, not about the paper."""
