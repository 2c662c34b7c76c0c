"""`python -m outgrow.cluster`: the supervisor of a detached fleet (detach.py says what it reads)."""

import sys

from outgrow.cluster.detach import main

sys.exit(main())
