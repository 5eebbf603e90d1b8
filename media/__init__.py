"""The ground floor under `data_prep` and `avemo`: errors, files, record schema, video, audio, images, faces."""
