from experiments.label_errors.study import main

main()
