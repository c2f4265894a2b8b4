from experiments.assigners.study import main

main()
