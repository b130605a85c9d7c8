"""``python -m batchmix``: the command line."""

from batchmix.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
