from experiments.data_scaling.study import main

main()
