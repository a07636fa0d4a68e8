"""Where generation runs; `local` is this process."""
