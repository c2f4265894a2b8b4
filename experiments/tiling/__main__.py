from experiments.tiling.study import main

main()
