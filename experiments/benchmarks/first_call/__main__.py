import sys

from experiments.benchmarks.first_call.study import main

main()
sys.exit(0)
