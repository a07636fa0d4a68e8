"""Image-and-text models that answer questions about an image."""
