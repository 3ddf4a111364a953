import sys

sys.exit("this machine has no licence")
