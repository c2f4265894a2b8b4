from experiments.benchmarks.matching_speed.study import main

main()
