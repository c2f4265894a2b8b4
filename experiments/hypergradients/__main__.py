from experiments.hypergradients.study import main

main()
