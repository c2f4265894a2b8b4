from experiments.benchmarks.inference_speed.study import main

main()
