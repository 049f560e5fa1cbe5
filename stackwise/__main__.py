"""`python -m stackwise`, where no `stackwise` is on the path."""

import sys

from stackwise.cli import main

if __name__ == "__main__":
    sys.exit(main())
