"""``python -m edgeco.cli``."""

from edgeco.cli import main

if __name__ == "__main__":
    main()
