from experiments.bccd.study import main

main()
