from experiments.iou_parity.study import main

main()
