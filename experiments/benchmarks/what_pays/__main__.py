from experiments.benchmarks.what_pays.study import main

main()
