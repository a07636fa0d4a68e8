"""VQAScore: how probably a judge says that an image shows its prompt."""
