from experiments.compiled_for.study import main

main()
