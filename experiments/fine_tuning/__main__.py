from experiments.fine_tuning.study import main

main()
