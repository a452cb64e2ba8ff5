"""Makes ``python -m deephash`` the same as the console script ``deephash``."""

from .cli import main

if __name__ == "__main__":
    main()
