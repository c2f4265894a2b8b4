from experiments.ensemble.study import main

main()
