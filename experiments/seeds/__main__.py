from experiments.seeds.study import main

main()
