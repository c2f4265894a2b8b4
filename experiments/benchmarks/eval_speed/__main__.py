import sys

from experiments.benchmarks.eval_speed.study import main

sys.exit(main())
