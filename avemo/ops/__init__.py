"""Operations tuned for XLA."""
