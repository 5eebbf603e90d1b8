"""What raw corpora, training and prediction share: errors, record schema, sound, pictures, faces."""
