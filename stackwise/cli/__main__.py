"""`python -m stackwise.cli`, where no `stackwise` is on the path."""

import sys

from stackwise.cli import main

sys.exit(main())
