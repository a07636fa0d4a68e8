"""NVILA-Lite (arXiv 2412.04468) as far as a verifier of images needs it, on transformers' Qwen2 and SigLIP classes."""
