from experiments.benchmarks.sweep_speed.study import main

main()
