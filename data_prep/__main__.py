"""`python -m data_prep CORPUS --source=DIR --output=DIR`."""

import sys

from data_prep.command_line import main

if __name__ == "__main__":
    sys.exit(main())
