"""What every room may use: errors, atomic files, identities, progress, images, samples and the registry."""
