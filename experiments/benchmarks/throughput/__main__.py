from experiments.benchmarks.throughput.study import main

main()
