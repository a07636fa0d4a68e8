"""The command line: `main.py` starts the application of `app.py`, and each command has a file with its options and its body.

A command's file has `register(app)`. It imports what is heavy inside its functions, so that `--help` stays fast.
"""
