from experiments.multi_scale.study import main

main()
