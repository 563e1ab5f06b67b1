"""`python -m vlm3_ros.cli`, where the command `vlm3` is not on the path."""

import sys

from vlm3_ros.cli import main

sys.exit(main())
