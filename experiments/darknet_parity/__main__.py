from experiments.darknet_parity.study import main

main()
