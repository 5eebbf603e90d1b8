"""`python -m avemo.postprocess --workdir=RUN`; the code is `avemo.evaluation.postprocess`."""

import sys

from avemo.evaluation.postprocess import main

if __name__ == "__main__":
    sys.exit(main())
