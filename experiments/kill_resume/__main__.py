import sys

from experiments.kill_resume.study import main

sys.exit(main())
