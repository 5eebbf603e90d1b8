"""`python -m data_prep CORPUS --source=DIR --output=DIR`."""

import sys

from media.errors import not_installed

if __name__ == "__main__":
    try:
        from data_prep.command_line import main
    except ModuleNotFoundError as error:
        print(f"error: {not_installed(error)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(main())
