"""`python -m sana_bench`."""

from sana_bench.cli.main import main

if __name__ == "__main__":
    main()
