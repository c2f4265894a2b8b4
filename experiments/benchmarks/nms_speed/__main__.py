from experiments.benchmarks.nms_speed.study import main

main()
