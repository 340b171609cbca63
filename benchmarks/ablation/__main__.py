"""`python -m benchmarks.ablation`."""

import sys

from benchmarks.ablation.run import main

if __name__ == "__main__":
    sys.exit(main())
