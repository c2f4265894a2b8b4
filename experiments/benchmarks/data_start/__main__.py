import sys

from experiments.benchmarks.data_start.study import main

sys.exit(main())
