from experiments.small_data.study import main

main()
