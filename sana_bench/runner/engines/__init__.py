"""Who does the units of work of a run: this process, or workers on several devices and nodes."""
