"""`python -m tans_core.cli` is `tans`."""

from tans_core.cli import main

if __name__ == "__main__":
    main()
