from experiments.label_suspects.study import main

main()
