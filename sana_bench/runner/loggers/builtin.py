"""The loggers that come with sana-bench; each imports its service's package, so none is imported unless asked for."""
