from experiments.ciou_vs_mse.study import main

main()
