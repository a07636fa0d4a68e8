"""Training of SANA's networks: reconstruction for DC-AE, flow matching for transformer and text encoder (see `run`)."""
