from experiments.suppression.study import main

main()
