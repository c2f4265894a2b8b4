from experiments.loss_weights.study import main

main()
