"""Runs on their way out and in: tables, export, import and merge."""
